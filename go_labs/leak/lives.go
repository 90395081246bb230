package main

import (
	"strconv"
	"sync"

	"kmlab/labkit"
)

// lives has the same work twice: workers, every second of which returns early, and one goroutine that waits for all of them. They
// differ in a defer.
func (o *options) lives(r *labkit.Run) error {
	for _, size := range *o.sizes {
		for _, variant := range []string{"with", "without"} {
			s, err := r.Segment("lives", map[string]string{"defer": variant, "size": strconv.Itoa(size)})
			if err != nil {
				return err
			}
			s.Expected["created"] = int64(2*size + 1)
			s.Expected["ended"] = int64(2 * size)
			if variant == "with" {
				s.Expected["ended"]++
			}
			if err := quiescent(); err != nil {
				return err
			}
			if err := s.Quiet(func() error { return live(s, 2*size, variant == "with") }); err != nil {
				return err
			}
		}
	}
	return nil
}

func live(s *labkit.Segment, workers int, deferred bool) error {
	var done sync.WaitGroup
	ids := make([]planted, workers)
	waiter := make([]planted, 1)
	waiter[0].reason = labkit.OnWaitGroup()
	done.Add(workers)
	for i := range ids {
		if deferred {
			withDefer(&ids[i], &done, i%2 == 0)
		} else {
			withoutDefer(&ids[i], &done, i%2 == 0)
		}
	}
	awaitAll(&waiter[0], &done)
	err := await(func(states map[int64]string) bool {
		if deferred {
			return gone(ids, states) && gone(waiter, states)
		}
		return gone(ids, states) && arrived(waiter, states)
	})
	s.Goroutine("waiter", waiter[0].id.Load())
	return err
}

//go:noinline
func withDefer(p *planted, done *sync.WaitGroup, early bool) {
	go func() {
		defer done.Done()
		p.here()
		if early {
			return
		}
		labkit.Monotonic()
	}()
}

//go:noinline
func withoutDefer(p *planted, done *sync.WaitGroup, early bool) {
	go func() {
		p.here()
		if early {
			return
		}
		labkit.Monotonic()
		done.Done()
	}()
}

//go:noinline
func awaitAll(p *planted, done *sync.WaitGroup) {
	go func() {
		p.here()
		done.Wait()
	}()
}
