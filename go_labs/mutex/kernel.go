package main

import (
	"fmt"
	"strconv"

	"kmlab/labkit"
)

const (
	kernelWaiters    = 16
	kernelGoroutines = 4
)

// watched is for tools that look from the kernel's side: waiters whose number and lock are known, then free contention on
// a lock whose address is known. What such a tool sees of either is its own count against these.
func (o *options) watched(r *labkit.Run) error {
	for _, section := range []struct {
		lock, waiters string
		run           func(*labkit.Segment, int) error
	}{
		{"mutex", "lockers", mutexWaiters}, {"rwmutex", "readers", readersBehindWriter}, {"rwmutex", "writers", writersBehindReader},
	} {
		s, err := r.Segment("kernel", map[string]string{
			"lock": section.lock, "waiters": section.waiters, "goroutines": strconv.Itoa(kernelWaiters), "contention": "forced",
		})
		if err != nil {
			return err
		}
		s.Counts["waiters"] = kernelWaiters
		if err := s.Quiet(func() error { return section.run(s, kernelWaiters) }); err != nil {
			return fmt.Errorf("kernel, %d %s of a %s: %w", kernelWaiters, section.waiters, section.lock, err)
		}
	}
	for _, lock := range []string{"mutex", "rwmutex"} {
		l := &load{lock: lock, readers: 50, goroutines: kernelGoroutines, length: hogLength}
		if err := l.begin(r, "kernel"); err != nil {
			return err
		}
		l.segment.Parameters["contention"] = "free"
		l.repeat(r, *o.kernel)
	}
	return nil
}
