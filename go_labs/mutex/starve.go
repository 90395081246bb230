package main

import (
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"kmlab/labkit"
)

const (
	hogs      = 3
	hogLength = 2000
)

// scene is one goroutine that wants a lock now and then, against others that take it again at once.
type scene struct {
	lock, waiter, others string
	take, give           func() // of the waiter
	hold, drop           func() // of the others
}

func scenes() ([]scene, map[string]uint64) {
	mutex, written, read := new(sync.Mutex), new(sync.RWMutex), new(sync.RWMutex)
	return []scene{
		{"mutex", "locker", "lockers", mutex.Lock, mutex.Unlock, mutex.Lock, mutex.Unlock},
		{"rwmutex", "writer", "readers", written.Lock, written.Unlock, written.RLock, written.RUnlock},
		{"rwmutex", "reader", "writers", read.RLock, read.RUnlock, read.Lock, read.Unlock},
	}, map[string]uint64{
		"locker": address(mutex), "writer": address(written), "reader": address(read),
	}
}

// starving takes the time of every acquisition of the one waiter, which is cheap because only it is timed, and counts
// how often the others got the lock meanwhile.
func (o *options) starving(r *labkit.Run) error {
	all, addresses := scenes()
	for _, i := range r.Random.Perm(len(all)) {
		c := all[i]
		s, err := r.Segment("starve", map[string]string{
			"lock": c.lock, "waiter": c.waiter, "others": c.others, "goroutines": strconv.Itoa(hogs + 1),
		})
		if err != nil {
			return err
		}
		s.Addresses[c.lock] = addresses[c.waiter]
		c.run(s, *o.starve)
	}
	return nil
}

func (c scene) run(s *labkit.Segment, d time.Duration) {
	var stop atomic.Bool
	var others atomic.Int64
	s.Enter()
	wait := crowd(hogs, func() {
		var n int64
		x := uint64(1)
		for !stop.Load() {
			c.hold()
			x = work(x, hogLength)
			c.drop()
			n++
		}
		others.Add(n)
		runtime.KeepAlive(x)
	})
	var acquired, longest int64
	for end := labkit.Monotonic() + int64(d); ; runtime.Gosched() {
		before := labkit.Monotonic()
		if before >= end {
			break
		}
		c.take()
		waited := labkit.Monotonic() - before
		c.give()
		acquired++
		if waited > longest {
			longest = waited
		}
		s.Sample("wait_ns", float64(waited))
	}
	stop.Store(true)
	wait()
	s.Leave()
	s.Counts["acquired"], s.Counts["others_acquired"] = acquired, others.Load()
	s.Counts["attempts"], s.Counts["longest_wait_ns"] = acquired+others.Load(), longest
}
