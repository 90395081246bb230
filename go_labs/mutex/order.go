package main

import (
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"kmlab/labkit"
)

const (
	orderReaders   = 4
	overlapping    = 4
	overtakeLimit  = 10
	starvation     = time.Millisecond // starvationThresholdNs of sync.Mutex
	overlapPatient = 10 * time.Second
)

// order decides by the order of acquisitions who overtakes whom; no figure in it is a time.
func (o *options) order(r *labkit.Run) error {
	for _, section := range []struct {
		lock, scene string
		rounds      int
		run         func(*labkit.Segment) error
	}{
		{"rwmutex", "readers-after-writer", *o.rounds, readersAfterWriter},
		{"rwmutex", "readers-after-second-writer", *o.rounds, readersAfterSecondWriter},
		{"mutex", "overtaking", *o.rounds, overtaking},
		{"mutex", "overlap", 1, overlapMutex},
		{"rwmutex", "overlap", 1, overlapRWMutex},
	} {
		s, err := r.Segment("order", map[string]string{
			"lock": section.lock, "scene": section.scene, "rounds": strconv.Itoa(section.rounds),
		})
		if err != nil {
			return err
		}
		s.Counts["overtakes"], s.Counts["overtakes_max"] = 0, 0
		err = s.Quiet(func() error {
			for i := 0; i < section.rounds; i++ {
				s.Counts["rounds"]++
				if err := section.run(s); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("order, %s %s: %w", section.lock, section.scene, err)
		}
	}
	return nil
}

// readersAfterWriter: a reader holds, a writer is seen parked, then readers arrive. All of them must park behind the writer;
// the order of acquisitions says whether one of them got in first.
func readersAfterWriter(s *labkit.Segment) error {
	var rw sync.RWMutex
	var turn, writer atomic.Int64
	expect(s, map[string]int{
		"sem": orderReaders + 1, "sem_rw_writer": 1, "park_rw_writer": 1, "sem_rw_reader": orderReaders,
		"park_rw_reader": orderReaders, "resumed": orderReaders + 1,
	})
	rw.RLock()
	waitWriter := crowd(1, func() {
		rw.Lock()
		writer.Store(turn.Add(1))
		rw.Unlock()
	})
	if err := labkit.AwaitParked(labkit.OnRWMutex, 1); err != nil {
		return err
	}
	turns := make(chan int64, orderReaders)
	waitReaders := crowd(orderReaders, func() {
		rw.RLock()
		turns <- turn.Add(1)
		rw.RUnlock()
	})
	if err := labkit.AwaitParked(labkit.OnRWMutexRead, orderReaders); err != nil {
		return err
	}
	rw.RUnlock()
	waitWriter()
	waitReaders()
	countOvertakes(s, turns, writer.Load())
	return nil
}

// readersAfterSecondWriter: a writer holds, a second one is seen parked, then readers arrive. Unlock lets waiting readers in before the
// next writer, so here later readers do overtake it, by one batch. Whether the second writer then still waits for them
// depends on timing, so only the other counters are expected.
func readersAfterSecondWriter(s *labkit.Segment) error {
	var rw sync.RWMutex
	var turn, writer atomic.Int64
	for name, n := range map[string]int64{
		"slow": 1, "park_mutex": 1, "sem_rw_reader": orderReaders, "park_rw_reader": orderReaders,
	} {
		s.Expected[name] += n
	}
	rw.Lock()
	waitWriter := crowd(1, func() {
		rw.Lock()
		writer.Store(turn.Add(1))
		rw.Unlock()
	})
	if err := labkit.AwaitParked(labkit.OnMutex, 1); err != nil {
		return err
	}
	turns := make(chan int64, orderReaders)
	waitReaders := crowd(orderReaders, func() {
		rw.RLock()
		turns <- turn.Add(1)
		rw.RUnlock()
	})
	if err := labkit.AwaitParked(labkit.OnRWMutexRead, orderReaders); err != nil {
		return err
	}
	rw.Unlock()
	waitWriter()
	waitReaders()
	countOvertakes(s, turns, writer.Load())
	return nil
}

// countOvertakes counts the readers, all of them later than the writer, whose turn came before the writer's.
func countOvertakes(s *labkit.Segment, turns chan int64, writer int64) {
	var overtakes int64
	for len(turns) > 0 {
		if <-turns < writer {
			overtakes++
		}
	}
	s.Counts["overtakes"] += overtakes
	s.Counts["readers"] += orderReaders
	if overtakes > s.Counts["overtakes_max"] {
		s.Counts["overtakes_max"] = overtakes
	}
}

// overlapRWMutex: readers stay inside until all are there, or until patience ends.
func overlapRWMutex(s *labkit.Segment) error {
	var rw sync.RWMutex
	expect(s, nil)
	arrived, leave := make(chan struct{}, overlapping), make(chan struct{})
	wait := crowd(overlapping, func() {
		rw.RLock()
		arrived <- struct{}{}
		<-leave
		rw.RUnlock()
	})
	patience := time.NewTimer(overlapPatient)
	defer patience.Stop()
	for waiting := true; waiting && s.Counts["inside_max"] < overlapping; {
		select {
		case <-arrived:
			s.Counts["inside_max"]++
		case <-patience.C:
			waiting = false
		}
	}
	close(leave)
	wait()
	s.Counts["goroutines"] = overlapping
	return nil
}

// overlapMutex: whoever is first inside stays until the others are seen parked.
func overlapMutex(s *labkit.Segment) error {
	var mutex sync.Mutex
	var inside, most atomic.Int64
	entered, leave := make(chan struct{}, overlapping), make(chan struct{})
	expect(s, map[string]int{"slow": overlapping - 1, "sem": overlapping - 1, "park_mutex": overlapping - 1, "resumed": overlapping - 1})
	wait := crowd(overlapping, func() {
		mutex.Lock()
		if now := inside.Add(1); now > most.Load() {
			most.Store(now)
		}
		entered <- struct{}{}
		<-leave
		inside.Add(-1)
		mutex.Unlock()
	})
	<-entered
	err := labkit.AwaitParked(labkit.OnMutex, overlapping-1)
	close(leave)
	if err != nil {
		return err
	}
	wait()
	s.Counts["inside_max"], s.Counts["goroutines"] = most.Load(), overlapping
	return nil
}

// overtaking: one goroutine holds a Mutex while a waiter is seen parked for longer than the starvation threshold, then unlocks and
// locks again at once, over and over, as a greedy writer would. A waiter that loses once marks the lock as starving,
// and the next Unlock must hand over to it: so at most one overtake. The loop gives up after ten, which would be starvation.
func overtaking(s *labkit.Segment) error {
	var mutex sync.Mutex
	var acquired atomic.Bool
	mutex.Lock()
	wait := crowd(1, func() {
		mutex.Lock()
		acquired.Store(true)
		mutex.Unlock()
	})
	if err := labkit.AwaitParked(labkit.OnMutex, 1); err != nil {
		return err
	}
	time.Sleep(2 * starvation)
	var overtakes int64
	for {
		mutex.Unlock()
		mutex.Lock()
		if acquired.Load() || overtakes == overtakeLimit {
			break
		}
		overtakes++
		if err := labkit.AwaitParked(labkit.OnMutex, 1); err != nil {
			return err
		}
	}
	mutex.Unlock()
	wait()
	s.Counts["overtakes"] += overtakes
	s.Counts["waiters"]++
	if overtakes > s.Counts["overtakes_max"] {
		s.Counts["overtakes_max"] = overtakes
	}
	return nil
}
