package labkit

import (
	"sort"
	"sync"
)

const selfTestGoroutines = 5

// identify is the self-test of the goroutine id: in segment 511 a few goroutines each read their own id from Go itself and
// then park once on a sync.Mutex, where the probe reads it from memory. A wrong offset gives plausible numbers, but not these.
func (r *Run) identify() error {
	s := newSegment(r, SelfTestSegment, "self-test", map[string]string{"goroutines": "5"})
	// Every probe set counts it, whatever else it observes.
	s.Expected["park_mutex"] = selfTestGoroutines
	err := s.Quiet(func() error {
		var mutex sync.Mutex
		ids := make(chan int64, selfTestGoroutines)
		mutex.Lock()
		for i := 0; i < selfTestGoroutines; i++ {
			go func() {
				id := GoroutineID()
				mutex.Lock()
				ids <- id
				mutex.Unlock()
			}()
		}
		err := AwaitParked(OnMutex, selfTestGoroutines)
		mutex.Unlock()
		for i := 0; err == nil && i < selfTestGoroutines; i++ {
			r.selfTest = append(r.selfTest, <-ids)
		}
		return err
	})
	r.own = s
	sort.Slice(r.selfTest, func(i, j int) bool { return r.selfTest[i] < r.selfTest[j] })
	return err
}
