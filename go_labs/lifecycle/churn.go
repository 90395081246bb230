package main

import (
	"runtime"
	"strconv"
	"sync/atomic"
	"time"

	"kmlab/labkit"
)

// churning measures how fast whole lives go by: created, parked once, woken, ended. The same runs bare and under probes.
func (o *options) churning(r *labkit.Run) error {
	s, err := r.Segment("churn", map[string]string{"goroutines": strconv.Itoa(*o.churn)})
	if err != nil {
		return err
	}
	warmUp()
	for i := 0; i < *o.repetitions; i++ {
		var elapsed time.Duration
		err := s.Quiet(func() error {
			elapsed, err = pass(*o.churn)
			return err
		})
		if err != nil {
			return err
		}
		s.Counts["lives"] += int64(*o.churn)
		s.Expected["created"] = s.Counts["lives"]
		s.Expected["ended"] = s.Counts["lives"]
		s.Sample("ns_per_life", float64(elapsed)/float64(*o.churn))
	}
	return nil
}

// pass lets n goroutines live: all wait for one gate, which the last of them to start opens, and the last one to go on says so.
func pass(n int) (time.Duration, error) {
	before := runtime.NumGoroutine()
	gate, done := make(chan struct{}), make(chan struct{})
	var started, left atomic.Int64
	left.Store(int64(n))
	begin := time.Now()
	for i := 0; i < n; i++ {
		go func() {
			if started.Add(1) == int64(n) {
				close(gate)
			}
			<-gate
			if left.Add(-1) == 0 {
				close(done)
			}
		}()
	}
	<-done
	elapsed := time.Since(begin)
	return elapsed, labkit.AwaitGoroutines(before)
}
