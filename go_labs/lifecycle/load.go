package main

import (
	"fmt"
	"runtime"
	"runtime/metrics"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"kmlab/labkit"
)

const (
	shortTick    = 5 * time.Millisecond  // of the load that all sources look at
	longTick     = 25 * time.Millisecond // of the soak, where each of the driver's own waits is a record, too
	longLived    = 20                    // goroutines that live as long as the load
	longestNap   = 20 * time.Millisecond
	metricMade   = "/sched/goroutines-created:goroutines" // Go 1.26 and newer
	shareHeld    = 5                                      // of 100 goroutines: wait beyond the threshold
	sharePanic   = 2                                      // panic and recover
	shareWait    = 10                                     // wait for a channel until the next tick
	shareNap     = 20                                     // sleep for a moment; the others end at once
	heldUntil    = 3                                      // halves of the threshold
	mostAtOnce   = 64                                     // goroutines that one tick may create, so that a late tick makes no storm
	warmupCycles = 2
)

// load is a mixed load of goroutines at a steady rate. Its driver is the only one that creates any.
type load struct {
	segment   *labkit.Segment
	threshold time.Duration
	waiting   []chan struct{} // closed at the next tick
	held      []*hold
	long      chan struct{}

	created  int64
	held64   int64
	planned  int64 // panics
	ended    atomic.Int64
	panicked atomic.Int64
}

// hold is a goroutine that waits beyond the threshold: its gate opens half as long again after it said that it would wait now.
type hold struct {
	gate    chan struct{}
	arrived atomic.Int64
}

// table runs the load under Go's own tracer while the article's method looks, too: all three see the same goroutines.
func (o *options) table(r *labkit.Run) error {
	s, err := r.Segment("table", map[string]string{"rate": strconv.Itoa(*o.loadRate), "dump": o.dump.String()})
	if err != nil {
		return err
	}
	dumper := newDumper(s, *o.dump)
	warmUp()
	return s.Traced(func() error { return o.drive(r, s, *o.load, *o.loadRate, shortTick, dumper.look) })
}

// soak runs the load for as long as wanted, and nothing beside it.
func (o *options) soak(r *labkit.Run) error {
	s, err := r.Segment("soak", map[string]string{"rate": strconv.Itoa(*o.rate)})
	if err != nil {
		return err
	}
	if err := withoutHugePages(); err != nil {
		return err
	}
	warmUp()
	s.Enter()
	defer s.Leave()
	return o.drive(r, s, *o.duration, *o.rate, longTick, func(time.Time) {})
}

// withoutHugePages keeps khugepaged from making 2 MiB of a few pages in the middle of the soak: memory is then what is in use.
func withoutHugePages() error {
	const setTHPDisable = 41 // PR_SET_THP_DISABLE, include/uapi/linux/prctl.h
	if _, _, errno := syscall.Syscall6(syscall.SYS_PRCTL, setTHPDisable, 1, 0, 0, 0, 0); errno != 0 {
		return fmt.Errorf("prctl(PR_SET_THP_DISABLE): %w", errno)
	}
	return nil
}

// warmUp lets the runtime create what it creates once: the collector's workers.
func warmUp() {
	for i := 0; i < warmupCycles; i++ {
		runtime.GC()
	}
}

// drive creates goroutines at rate for length and then sees all of them end, so that nothing begins or ends at the borders of
// the segment. look is called once in a tick.
func (o *options) drive(r *labkit.Run, s *labkit.Segment, length time.Duration, rate int, tick time.Duration, look func(time.Time)) error {
	before := runtime.NumGoroutine()
	made, known := createdByRuntime()
	l := &load{segment: s, threshold: *o.threshold, long: make(chan struct{})}
	for i := 0; i < longLived; i++ {
		l.start(func() { <-l.long })
	}
	begin, due := time.Now(), 0.0
	for last := begin; time.Since(begin) < length; {
		now := time.Now()
		due = min(due+now.Sub(last).Seconds()*float64(rate), mostAtOnce)
		last = now
		for ; due >= 1; due-- {
			l.another(r.Random.Intn(100), time.Duration(r.Random.Int63n(int64(longestNap))))
		}
		look(now)
		time.Sleep(tick)
		l.release()
	}
	elapsed := time.Since(begin)
	for len(l.held) > 0 {
		time.Sleep(tick)
		l.release()
	}
	close(l.long)
	if err := labkit.AwaitGoroutines(before); err != nil {
		return err
	}
	if after, _ := createdByRuntime(); known {
		s.Counts["metric_created"] = int64(after - made)
	}
	s.Counts["created"], s.Counts["ended"] = l.created, l.ended.Load()
	s.Counts["held"], s.Counts["planned_panics"], s.Counts["panics"] = l.held64, l.planned, l.panicked.Load()
	s.Sample("goroutines_per_s", float64(l.created)/elapsed.Seconds())
	return nil
}

func (l *load) start(body func()) {
	l.created++
	go func() {
		defer l.ended.Add(1)
		body()
	}()
}

// another creates one goroutine; choice is a number below 100.
func (l *load) another(choice int, nap time.Duration) {
	switch {
	case choice < shareHeld:
		h := &hold{gate: make(chan struct{})}
		l.held = append(l.held, h)
		l.held64++
		l.start(func() {
			h.arrived.Store(labkit.Monotonic())
			<-h.gate
		})
	case choice < shareHeld+sharePanic:
		l.planned++
		l.start(func() {
			defer func() {
				if recover() != nil {
					l.panicked.Add(1)
				}
			}()
			panic("planned")
		})
	case choice < shareHeld+sharePanic+shareWait:
		gate := make(chan struct{})
		l.waiting = append(l.waiting, gate)
		l.start(func() { <-gate })
	case choice < shareHeld+sharePanic+shareWait+shareNap:
		l.start(func() { time.Sleep(nap) })
	default:
		l.start(func() {})
	}
}

// release lets go who waits for the tick, and who has waited beyond the threshold.
func (l *load) release() {
	for i, gate := range l.waiting {
		close(gate)
		l.waiting[i] = nil
	}
	l.waiting = l.waiting[:0]
	now, kept := labkit.Monotonic(), l.held[:0]
	for _, h := range l.held {
		if at := h.arrived.Load(); at != 0 && now-at >= int64(l.threshold)*heldUntil/2 {
			close(h.gate)
		} else {
			kept = append(kept, h)
		}
	}
	for i := len(kept); i < len(l.held); i++ {
		l.held[i] = nil
	}
	l.held = kept
}

// createdByRuntime returns how many goroutines the runtime says that it has created, and whether it says so.
func createdByRuntime() (uint64, bool) {
	sample := []metrics.Sample{{Name: metricMade}}
	metrics.Read(sample)
	if sample[0].Value.Kind() != metrics.KindUint64 {
		return 0, false
	}
	return sample[0].Value.Uint64(), true
}
