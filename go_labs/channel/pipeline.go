package main

import (
	"runtime"
	"strconv"
	"sync/atomic"

	"kmlab/labkit"
)

const (
	workers    = 4
	jobsBuffer = 8
	jobLength  = 300 // dependent multiplications for each job
)

// pipeline sends jobs through a buffered channel to workers, their results through an unbuffered one, and ends with a close: named
// channels that are waited on in different ways. How often each is waited on is the scheduler's choice; how often each is used is not.
func (o *options) pipeline(r *labkit.Run) error {
	items := *o.items
	s, err := r.Segment("pipeline", map[string]string{"items": strconv.Itoa(items), "workers": strconv.Itoa(workers)})
	if err != nil {
		return err
	}
	jobs, results, quit := make(chan uint64, jobsBuffer), make(chan uint64), make(chan struct{})
	s.Addresses["jobs"], s.Addresses["results"], s.Addresses["quit"] = address(jobs), address(results), address(quit)
	var done atomic.Int64
	err = s.Quiet(func() error {
		go func() {
			for i := 0; i < items; i++ {
				jobs <- uint64(i)
			}
			done.Add(1)
		}()
		for w := 0; w < workers; w++ {
			go func() {
				for worked := true; worked; {
					select {
					case x := <-jobs:
						results <- work(x, jobLength)
					case <-quit:
						worked = false
					}
				}
				done.Add(1)
			}()
		}
		go func() {
			for i := 0; i < items; i++ {
				<-results
			}
			close(quit)
			done.Add(1)
		}()
		return labkit.AwaitCount(&done, workers+2)
	})
	for _, c := range []any{jobs, results, quit} {
		runtime.KeepAlive(c)
	}
	s.Counts["items"] = int64(items)
	s.Expected["chan_send"], s.Expected["chan_recv"] = int64(2*items), int64(items)
	s.Expected["select"], s.Expected["close"] = int64(items+workers), 1
	return err
}

// work is a chain of multiplications that the compiler cannot shorten.
func work(x uint64, length int) uint64 {
	for i := 0; i < length; i++ {
		x = x*6364136223846793005 + 1442695040888963407
	}
	return x
}
