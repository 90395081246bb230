package main

import (
	"runtime"
	"strconv"
	"sync/atomic"
	"time"

	"kmlab/labkit"
)

const (
	// blockBytes is the size of an element that takes long to copy; a channel's elements are smaller than 64 KiB.
	blockBytes = 32 << 10

	// contentionPs are enough for both goroutines, for main, and for whatever wakes them.
	contentionPs = 4

	// betweenArrivals is the sleep before each arrival.
	betweenArrivals = 200 * time.Microsecond
)

type block [blockBytes]byte

// contend is the control: two goroutines contend for one channel's lock, and neither ever waits on the channel. Each sends and then
// receives; there is room for both, and each finds at least what it sent itself.
//
// Their threads share one CPU. The first uses the channel all the time, and copies elements under the lock for more than half of
// it (typedmemmove and typedmemclr in chansend and chanrecv). The second comes in between with a higher priority: the first stops
// wherever it is, and where that is under the lock it cannot let go of it before the second sleeps. So contention does not depend on how
// many CPUs really run at once.
func (o *options) contend(r *labkit.Run) error {
	s, err := r.Segment("contended", map[string]string{"goroutines": "2", "processors": strconv.Itoa(contentionPs)})
	if err != nil {
		return err
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(contentionPs))
	channel := make(chan block, 2)
	s.Addresses["channel"] = address(channel)
	var stop atomic.Bool
	var done, pairs, arrivals, first atomic.Int64
	use := func(mine *block) {
		channel <- *mine
		<-channel
		pairs.Add(1)
	}
	// The goroutines end without giving their threads back, which ends the threads.
	err = s.Quiet(func() error {
		go func() {
			defer done.Add(1)
			runtime.LockOSThread()
			for mine, pinned := new(block), pinThread(); pinned && !stop.Load(); {
				use(mine)
			}
		}()
		go func() {
			defer done.Add(1)
			runtime.LockOSThread()
			pinned := pinThread()
			if raiseThread() {
				first.Store(1)
			}
			for mine := new(block); pinned && arrivals.Load() < int64(*o.arrivals); arrivals.Add(1) {
				time.Sleep(betweenArrivals)
				use(mine)
			}
			stop.Store(true)
		}()
		return labkit.AwaitCount(&done, 2)
	})
	runtime.KeepAlive(channel)
	n := pairs.Load()
	s.Counts["operations"], s.Counts["arrivals"], s.Counts["priority"] = 2*n, arrivals.Load(), first.Load()
	s.Expected["chan_send"], s.Expected["chan_recv"], s.Expected["chan_lock"] = n, n, 2*n
	s.Expected[sending], s.Expected[receiving], s.Expected["handoff_send"], s.Expected["handoff_recv"] = 0, 0, 0, 0
	return err
}
