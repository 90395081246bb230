package main

import (
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"kmlab/labkit"
)

const (
	gcGoroutines = 4
	gcLength     = 20        // steps inside the lock
	gcOutside    = 500       // steps between two acquisitions: a lock that is seldom wanted twice at once
	gcObject     = 512       // bytes allocated inside the lock
	gcBallast    = 1 << 14   // live objects, 1 MiB, so that a collection has something to mark
	gcPercent    = 25        // with about 1 MiB live: a collection each few hundred KiB, many in each half of a pair
	gcLimit      = 512 << 20 // with the collector off the heap only grows; the machine has 1 GiB
)

// node is 64 bytes with a pointer that leads to another, so that the collector has to look into it.
type node struct {
	parent *node
	_      [56]byte
}

// collected runs pairs of short segments that differ only in whether the collector may run. Within a pair the order is random.
func (o *options) collected(r *labkit.Run) error {
	ballast := make([]*node, gcBallast)
	for i := range ballast {
		ballast[i] = &node{parent: ballast[i/2]}
	}
	for pair := 0; pair < *o.pairs; pair++ {
		sides := []string{"off", "on"}
		if r.Random.Intn(2) == 1 {
			sides[0], sides[1] = sides[1], sides[0]
		}
		for _, side := range sides {
			s, err := r.Segment("gc", map[string]string{
				"lock": "mutex", "collector": side, "pair": strconv.Itoa(pair), "goroutines": strconv.Itoa(gcGoroutines),
			})
			if err != nil {
				return err
			}
			allocate(s, side == "on", *o.gc)
		}
	}
	runtime.KeepAlive(ballast)
	return nil
}

// allocate uses a mutex now and then and allocates while holding it: a goroutine that must help the collector does so
// inside. The lock is seldom contended without the collector, for the claim is about contention that nobody expects.
func allocate(s *labkit.Segment, collector bool, d time.Duration) {
	mutex := new(sync.Mutex)
	s.Addresses["mutex"] = address(mutex)
	runtime.GC()
	percent := -1
	if collector {
		percent = gcPercent
	}
	previous := debug.SetGCPercent(percent)
	limit := debug.SetMemoryLimit(gcLimit)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	var stop atomic.Bool
	var attempts atomic.Int64
	s.Enter()
	begin := labkit.Monotonic()
	wait := crowd(gcGoroutines, func() {
		var n int64
		var kept []byte
		x := uint64(1)
		for !stop.Load() {
			mutex.Lock()
			kept = make([]byte, gcObject)
			x = work(x, gcLength)
			mutex.Unlock()
			kept[0] = byte(x)
			x = work(x, gcOutside)
			n++
		}
		attempts.Add(n)
		runtime.KeepAlive(kept)
	})
	time.Sleep(d)
	stop.Store(true)
	wait()
	elapsed := labkit.Monotonic() - begin
	s.Leave()
	runtime.ReadMemStats(&after)
	debug.SetGCPercent(previous)
	debug.SetMemoryLimit(limit)
	s.Counts["attempts"] = attempts.Load()
	s.Counts["collections"] = int64(after.NumGC - before.NumGC)
	s.Counts["allocated_bytes"] = int64(after.TotalAlloc - before.TotalAlloc)
	if n := attempts.Load(); n > 0 {
		s.Sample("ns_per_op", float64(elapsed)/float64(n))
	}
}
