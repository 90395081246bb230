package main

import (
	"fmt"
	"sync/atomic"
	"time"

	"kmlab/labkit"
)

// waiters are goroutines that each wait for one context's done channel.
type waiters struct {
	woken []int64 // CLOCK_MONOTONIC, ns
	ended atomic.Int64
}

// wait starts one for each context and returns when all are seen parked. Others of the process may wait for channels, too, as under go test.
func wait(nodes []*node) (*waiters, error) {
	before := labkit.Parked()[labkit.OnReceive]
	w := &waiters{woken: make([]int64, len(nodes))}
	for i := range nodes {
		go func(i int, done <-chan struct{}) {
			<-done
			w.woken[i] = labkit.Monotonic()
			w.ended.Add(1)
		}(i, nodes[i].ctx.Done())
		nodes[i].asked = true
	}
	return w, labkit.AwaitParked(labkit.OnReceive, before+len(nodes))
}

// join returns when all have ended.
func (w *waiters) join() error {
	for deadline := time.Now().Add(30 * time.Second); ; {
		ended := w.ended.Load()
		if ended == int64(len(w.woken)) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("after 30 s only %d of %d waiters have ended", ended, len(w.woken))
		}
		time.Sleep(pause)
	}
}
