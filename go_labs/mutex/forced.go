package main

import (
	"fmt"
	"strconv"
	"sync"

	"kmlab/labkit"
)

// expect fills in every counter of the funnel, so that an event that must not happen is held against zero.
func expect(s *labkit.Segment, counts map[string]int) {
	for _, name := range []string{
		"slow", "sem", "sem_rw_reader", "sem_rw_writer", "park_mutex", "park_rw_reader", "park_rw_writer", "resumed",
	} {
		s.Expected[name] += int64(counts[name])
	}
}

// forced makes known numbers of goroutines wait: a holder keeps the lock until n of them are seen parked, then lets go. Why the
// counts are exact, from sync/mutex.go and sync/rwmutex.go (internal/sync/mutex.go from Go 1.24), the same in 1.21 to 1.27:
// nobody takes a lock again that others wait for, so a waiter that is woken always finds the lock free and parks only once.
func (o *options) forced(r *labkit.Run) error {
	for _, n := range *o.sizes {
		for _, section := range []struct {
			lock, waiters string
			run           func(*labkit.Segment, int) error
		}{
			{"mutex", "lockers", mutexWaiters}, {"rwmutex", "readers", readersBehindWriter}, {"rwmutex", "writers", writersBehindReader},
		} {
			s, err := r.Segment("forced", map[string]string{
				"lock": section.lock, "waiters": section.waiters, "goroutines": strconv.Itoa(n),
			})
			if err != nil {
				return err
			}
			s.Counts["waiters"] = int64(n)
			if err := s.Quiet(func() error { return section.run(s, n) }); err != nil {
				return fmt.Errorf("forced, %d %s of a %s: %w", n, section.waiters, section.lock, err)
			}
		}
	}
	return nil
}

// crowd starts n goroutines that each run body once. Its result waits for all of them, on a channel: a WaitGroup would call
// semacquire1 itself, though not for a lock.
func crowd(n int, body func()) (wait func()) {
	done := make(chan struct{}, n)
	for i := 0; i < n; i++ {
		go func() {
			body()
			done <- struct{}{}
		}()
	}
	return func() {
		for i := 0; i < n; i++ {
			<-done
		}
	}
}

// mutexWaiters: each waiter enters lockSlow once, semacquire1 once, and parks once. The chain of hand-overs is strict:
// Unlock wakes one waiter, it finds the lock free, and only its own Unlock wakes the next.
func mutexWaiters(s *labkit.Segment, n int) error {
	mutex := new(sync.Mutex)
	s.Addresses["mutex"] = address(mutex)
	expect(s, map[string]int{"slow": n, "sem": n, "park_mutex": n, "resumed": n})
	mutex.Lock()
	wait := crowd(n, func() {
		mutex.Lock()
		s.Counts["acquired"]++
		mutex.Unlock()
	})
	err := labkit.AwaitParked(labkit.OnMutex, n)
	mutex.Unlock()
	if err == nil {
		wait()
	}
	return err
}

// readersBehindWriter: RLock of each finds readerCount negative and calls SemacquireRWMutexR, which calls semacquire1. The
// writer's Unlock releases readerSem once for each of them.
func readersBehindWriter(s *labkit.Segment, n int) error {
	rw := new(sync.RWMutex)
	s.Addresses["rwmutex"] = address(rw)
	expect(s, map[string]int{"sem": n, "sem_rw_reader": n, "park_rw_reader": n, "resumed": n})
	inside := make(chan struct{}, n)
	rw.Lock()
	wait := crowd(n, func() {
		rw.RLock()
		inside <- struct{}{}
		rw.RUnlock()
	})
	err := labkit.AwaitParked(labkit.OnRWMutexRead, n)
	rw.Unlock()
	if err == nil {
		wait()
		s.Counts["acquired"] = int64(len(inside))
	}
	return err
}

// writersBehindReader: the first writer gets the embedded Mutex and waits for the reader (SemacquireRWMutex); the other n−1 wait for that
// Mutex (lockSlow). When the reader leaves there is no other, so no later writer waits for readers.
func writersBehindReader(s *labkit.Segment, n int) error {
	rw := new(sync.RWMutex)
	s.Addresses["rwmutex"] = address(rw)
	expect(s, map[string]int{
		"slow": n - 1, "park_mutex": n - 1, "sem": n, "sem_rw_writer": 1, "park_rw_writer": 1, "resumed": n,
	})
	rw.RLock()
	wait := crowd(n, func() {
		rw.Lock()
		s.Counts["acquired"]++
		rw.Unlock()
	})
	err := labkit.AwaitParked(labkit.OnRWMutex, 1)
	if err == nil {
		err = labkit.AwaitParked(labkit.OnMutex, n-1)
	}
	rw.RUnlock()
	if err == nil {
		wait()
	}
	return err
}
