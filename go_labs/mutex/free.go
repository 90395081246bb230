package main

import (
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"kmlab/labkit"
)

// load is one configuration of free contention.
type load struct {
	lock       string
	readers    int // per cent of the acquisitions that are reads
	goroutines int
	length     int // steps of work inside the lock

	segment *labkit.Segment
	mutex   sync.Mutex
	rw      sync.RWMutex
}

// slot keeps what one goroutine counts; the padding keeps neighbours off its cache lines (two, for the adjacent-line prefetcher).
type slot struct {
	acquired, read int64
	_              [112]byte
}

// free measures each configuration in short repetitions, all configurations in one random order per repetition, so that a drift of the
// machine meets all of them alike.
func (o *options) free(r *labkit.Run) error {
	var loads []*load
	for _, length := range *o.lengths {
		for _, goroutines := range *o.goroutines {
			for _, readers := range *o.readers {
				for _, lock := range []string{"mutex", "rwmutex"} {
					l := &load{lock: lock, readers: readers, goroutines: goroutines, length: length}
					if err := l.begin(r, "free"); err != nil {
						return err
					}
					loads = append(loads, l)
				}
			}
		}
	}
	for repetition := 0; repetition < *o.repetitions; repetition++ {
		for _, i := range r.Random.Perm(len(loads)) {
			loads[i].repeat(r, *o.rep)
		}
	}
	return nil
}

func (l *load) begin(r *labkit.Run, section string) error {
	s, err := r.Segment(section, map[string]string{
		"lock": l.lock, "readers": strconv.Itoa(l.readers), "goroutines": strconv.Itoa(l.goroutines), "length": strconv.Itoa(l.length),
	})
	if err != nil {
		return err
	}
	s.Addresses["mutex"], s.Addresses["rwmutex"] = address(&l.mutex), address(&l.rw)
	delete(s.Addresses, map[string]string{"mutex": "rwmutex", "rwmutex": "mutex"}[l.lock])
	s.Samples["acquired"] = make([]float64, l.goroutines)
	l.segment = s
	return nil
}

// repeat runs the configuration once, for about d, and takes one sample. ns_per_op is wall time over all acquisitions, as Go's
// parallel benchmarks report it; every acquisition is an attempt, the top of the funnel.
func (l *load) repeat(r *labkit.Run, d time.Duration) {
	s := l.segment
	slots := make([]slot, l.goroutines)
	seeds := make([]draw, l.goroutines)
	for i := range seeds {
		seeds[i] = draw(r.Random.Uint64() | 1)
	}
	var stop atomic.Bool
	start := make(chan struct{})
	next := int64(-1)
	s.Enter()
	wait := crowd(l.goroutines, func() {
		i := atomic.AddInt64(&next, 1)
		<-start
		if l.lock == "mutex" {
			l.useMutex(&slots[i], seeds[i], &stop)
		} else {
			l.useRWMutex(&slots[i], seeds[i], &stop)
		}
	})
	begin := labkit.Monotonic()
	close(start)
	time.Sleep(d)
	stop.Store(true)
	wait()
	elapsed := labkit.Monotonic() - begin
	s.Leave()
	l.record(slots, elapsed)
}

func (l *load) record(slots []slot, elapsed int64) {
	s := l.segment
	var acquired int64
	for i := range slots {
		acquired += slots[i].acquired
		s.Samples["acquired"][i] += float64(slots[i].acquired)
		s.Counts["reads"] += slots[i].read
	}
	s.Counts["attempts"] += acquired
	s.Counts["repetitions"]++
	s.Counts["elapsed_ns"] += elapsed
	if acquired > 0 {
		s.Sample("ns_per_op", float64(elapsed)/float64(acquired))
	}
}

func (l *load) useMutex(mine *slot, random draw, stop *atomic.Bool) {
	share, x := uint64(l.readers), uint64(1)
	for !stop.Load() {
		read := random.next()%100 < share
		l.mutex.Lock()
		x = work(x, l.length)
		l.mutex.Unlock()
		if read {
			mine.read++
		}
		mine.acquired++
	}
	runtime.KeepAlive(x)
}

func (l *load) useRWMutex(mine *slot, random draw, stop *atomic.Bool) {
	share, x := uint64(l.readers), uint64(1)
	for !stop.Load() {
		if random.next()%100 < share {
			l.rw.RLock()
			x = work(x, l.length)
			l.rw.RUnlock()
			mine.read++
		} else {
			l.rw.Lock()
			x = work(x, l.length)
			l.rw.Unlock()
		}
		mine.acquired++
	}
	runtime.KeepAlive(x)
}
