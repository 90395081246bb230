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

	// contenders are more than the machine has CPUs, so that some are taken off a CPU while they hold the lock.
	contenders = 8
)

type block [blockBytes]byte

// contend is the control: goroutines on as many Ps contend for one channel's lock, and none ever waits on the channel. Each sends
// and then receives; there is room for all, and each finds at least what it sent itself. Elements are copied under the lock
// (typedmemmove and typedmemclr in chansend and chanrecv), long enough that the others give up spinning.
func (o *options) contend(r *labkit.Run) error {
	s, err := r.Segment("contended", map[string]string{"goroutines": strconv.Itoa(contenders), "processors": strconv.Itoa(contenders)})
	if err != nil {
		return err
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(contenders))
	channel := make(chan block, contenders)
	s.Addresses["channel"] = address(channel)
	var stop atomic.Bool
	var done, pairs atomic.Int64
	err = s.Quiet(func() error {
		for i := 0; i < contenders; i++ {
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
		return labkit.AwaitCount(&done, contenders)
	})
	runtime.KeepAlive(channel)
	n := pairs.Load()
	s.Counts["operations"] = 2 * n
	s.Expected["chan_send"], s.Expected["chan_recv"], s.Expected["chan_lock"] = n, n, 2*n
	s.Expected[sending], s.Expected[receiving], s.Expected["handoff_send"], s.Expected["handoff_recv"] = 0, 0, 0, 0
	return err
}
