package main

import (
	"context"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"

	"kmlab/labkit"
)

// watched plants the leaks of one round and keeps more threads busy than there are CPUs, while Go's own tracer looks from within and a
// tool from the kernel's side.
func (o *options) watched(r *labkit.Run) error {
	size := 0
	for _, n := range *o.sizes {
		size = max(size, n)
	}
	around := &surroundings{parent: context.Background(), period: o.period()}
	if err := o.plant(r, map[string]string{"round": "0", "size": strconv.Itoa(size)}, size, around); err != nil {
		return err
	}
	s, err := r.Segment("kernel", nil)
	if err != nil {
		return err
	}
	threads := 2 * runtime.NumCPU()
	before := runtime.GOMAXPROCS(threads)
	defer runtime.GOMAXPROCS(before)
	s.Enter()
	defer s.Leave()
	busy(threads, *o.kernel)
	s.Counts["planted"] = int64(len(o.leaks))
	s.Counts["busy"] = int64(threads)
	return nil
}

func busy(n int, length time.Duration) {
	var stop atomic.Bool
	done := make(chan struct{})
	for i := 0; i < n; i++ {
		go func() {
			for !stop.Load() {
			}
			done <- struct{}{}
		}()
	}
	time.Sleep(length)
	stop.Store(true)
	for i := 0; i < n; i++ {
		<-done
	}
}
