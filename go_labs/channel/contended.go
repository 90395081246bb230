package main

import (
	"runtime"
	"sync/atomic"
	"time"

	"kmlab/labkit"
)

// blockBytes is the size of an element that takes long to copy; elements of 64 KiB and more are not allowed in a channel.
const blockBytes = 32 << 10

type block [blockBytes]byte

// contend is the control: two goroutines on as many Ps contend for one channel's lock, and neither ever waits on the channel.
// Each sends and then receives; there is room for both, and each finds at least what it sent itself. Elements are copied under
// the lock (typedmemmove and typedmemclr in chansend and chanrecv), long enough that the other one gives up spinning.
func (o *options) contend(r *labkit.Run) error {
	s, err := r.Segment("contended", map[string]string{"goroutines": "2"})
	if err != nil {
		return err
	}
	channel := make(chan block, 2)
	s.Addresses["channel"] = address(channel)
	var stop atomic.Bool
	var done, pairs atomic.Int64
	err = s.Quiet(func() error {
		for i := 0; i < 2; i++ {
			go func() {
				mine := new(block)
				for !stop.Load() {
					channel <- *mine
					<-channel
					pairs.Add(1)
				}
				done.Add(1)
			}()
		}
		time.Sleep(*o.contended)
		stop.Store(true)
		return labkit.AwaitCount(&done, 2)
	})
	runtime.KeepAlive(channel)
	n := pairs.Load()
	s.Counts["operations"] = 2 * n
	s.Expected["chan_send"], s.Expected["chan_recv"], s.Expected["chan_lock"] = n, n, 2*n
	s.Expected[sending], s.Expected[receiving], s.Expected["handoff_send"], s.Expected["handoff_recv"] = 0, 0, 0, 0
	return err
}
