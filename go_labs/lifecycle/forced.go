package main

import (
	"fmt"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"

	"kmlab/labkit"
)

// life is one kind of goroutine of the forced section: what each of n does, and how the driver lets them go.
type life struct {
	name   string
	panics int // calls of gopanic by each
	parks  int // waits for the channel by each
	held   bool
	body   func(c *crowd)
}

// crowd is what n goroutines of one kind share.
type crowd struct {
	gate      chan struct{} // those who wait send to it; the driver receives when they may go on
	started   atomic.Int64
	finished  atomic.Int64
	recovered atomic.Int64
}

// Why each number is exact, in Go 1.21 to 1.27:
//
// created and ended: a go statement calls newproc1 once (runtime/proc.go), and every goroutine, however its function is left,
// ends in goexit0, which calls gdestroy once (from 1.22 on; before it does that work itself).
//
// panics: panic(v) compiles to a call of gopanic; so do the checks that fail at run time, by way of panicIndex and the like
// (runtime/panic.go). Goexit unwinds without it.
//
// park:chan send: a send to a channel without buffer that nobody receives from calls gopark once (chansend in runtime/chan.go). The
// driver receives only when all are seen parked: each of its receives finds a sender in the queue, makes it ready, and does
// not wait itself. Before, it sleeps and looks. Receives would not do, because goroutines of Go's own tracer wait in some.
var lives = []life{
	{name: "ends", body: func(*crowd) {}},
	{name: "goexit", body: func(*crowd) { runtime.Goexit() }},
	{name: "panics", panics: 1, body: func(c *crowd) {
		defer c.recover()
		panic("planned")
	}},
	{name: "fails", panics: 1, body: func(c *crowd) {
		defer c.recover()
		none[len(none)]++ // index out of range
	}},
	{name: "waits", parks: 1, body: func(c *crowd) { c.gate <- struct{}{} }},
	{name: "waits-long", parks: 1, held: true, body: func(c *crowd) { c.gate <- struct{}{} }},
}

var none []int

func (c *crowd) recover() {
	if recover() != nil {
		c.recovered.Add(1)
	}
}

// forced runs each kind of life in known numbers, all of it under Go's own tracer.
func (o *options) forced(r *labkit.Run) error {
	runtime.GC() // the collector's own goroutines are created at the first collection
	return r.Trace(func() error {
		for _, n := range *o.sizes {
			for _, kind := range lives {
				s, err := r.Segment("forced", map[string]string{"life": kind.name, "goroutines": strconv.Itoa(n)})
				if err != nil {
					return err
				}
				for name, each := range map[string]int{
					"created": 1, "ended": 1, "panics": kind.panics, "park:chan send": kind.parks,
				} {
					s.Expected[name] = int64(n * each)
				}
				if err := s.Quiet(func() error { return o.live(s, kind, n) }); err != nil {
					return fmt.Errorf("forced, %d goroutines, %s: %w", n, kind.name, err)
				}
			}
		}
		return nil
	})
}

// live creates n goroutines of one kind and sees all of them end.
func (o *options) live(s *labkit.Segment, kind life, n int) error {
	before := runtime.NumGoroutine()
	c := &crowd{gate: make(chan struct{})}
	for i := 0; i < n; i++ {
		go func() {
			c.started.Add(1)
			defer c.finished.Add(1)
			kind.body(c)
		}()
	}
	if kind.parks > 0 {
		if err := c.letGo(n, kind.held, *o.threshold); err != nil {
			return err
		}
	}
	if err := labkit.AwaitGoroutines(before); err != nil {
		return err
	}
	s.Counts["started"], s.Counts["finished"] = c.started.Load(), c.finished.Load()
	s.Counts["recovered"] = c.recovered.Load()
	if kind.held {
		s.Counts["held"] = int64(n)
	}
	return nil
}

// letGo takes what they send when all are seen parked; those that are to be held wait half as long again as the threshold from then on.
func (c *crowd) letGo(n int, held bool, threshold time.Duration) error {
	for c.started.Load() < int64(n) {
		time.Sleep(time.Millisecond)
	}
	if err := labkit.AwaitParked(labkit.OnSend, n); err != nil {
		return err
	}
	if held {
		time.Sleep(threshold + threshold/2)
	}
	for i := 0; i < n; i++ {
		<-c.gate
	}
	return nil
}
