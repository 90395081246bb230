package main

import (
	"sync"
	"time"

	"kmlab/labkit"
)

const (
	costSlice = 500 * time.Microsecond // shorter than a time slice of a busy host, so that most are undisturbed
	costBatch = 64                     // acquisitions between two looks at the clock
)

// costs measures acquisitions that nobody contends for, the kinds in turn in a random order, so that each round is a set of
// neighbours in time: what slows the machine for a while meets all kinds alike.
func (o *options) costs(r *labkit.Run) error {
	mutex, rw := new(sync.Mutex), new(sync.RWMutex)
	kinds := []struct {
		lock, access string
		batch        func()
		segment      *labkit.Segment
	}{
		{"mutex", "write", func() { lockMutex(mutex) }, nil},
		{"rwmutex", "write", func() { writeRWMutex(rw) }, nil},
		{"rwmutex", "read", func() { readRWMutex(rw) }, nil},
	}
	for i := range kinds {
		s, err := r.Segment("cost", map[string]string{"lock": kinds[i].lock, "access": kinds[i].access, "goroutines": "1"})
		if err != nil {
			return err
		}
		kinds[i].segment = s
	}
	for round := 0; round < *o.costRounds; round++ {
		for _, i := range r.Random.Perm(len(kinds)) {
			measure(kinds[i].segment, kinds[i].batch)
		}
	}
	return nil
}

func measure(s *labkit.Segment, batch func()) {
	var acquired, elapsed int64
	s.Enter()
	begin := labkit.Monotonic()
	for elapsed < int64(costSlice) {
		batch()
		acquired += costBatch
		elapsed = labkit.Monotonic() - begin
	}
	s.Leave()
	s.Counts["attempts"] += acquired
	s.Sample("ns_per_op", float64(elapsed)/float64(acquired))
}

func lockMutex(mutex *sync.Mutex) {
	for i := 0; i < costBatch; i++ {
		mutex.Lock()
		mutex.Unlock() //lint:ignore SA2001 the pair alone is what is measured
	}
}

func writeRWMutex(rw *sync.RWMutex) {
	for i := 0; i < costBatch; i++ {
		rw.Lock()
		rw.Unlock() //lint:ignore SA2001 the pair alone is what is measured
	}
}

func readRWMutex(rw *sync.RWMutex) {
	for i := 0; i < costBatch; i++ {
		rw.RLock()
		rw.RUnlock() //lint:ignore SA2001 the pair alone is what is measured
	}
}
