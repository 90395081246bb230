package main

import (
	"errors"
	"runtime"
	"strconv"
	"strings"
	"time"

	"kmlab/labkit"
)

// wellAnswered is the label of goroutines that begin at the place of a leak and end.
const wellAnswered = "answered"

const patience = 30 * time.Second

// forced plants the leaks: in each round as many of each kind as the size says, then the service works. Both are segments of
// their own, because what net/http starts for a request is another number in each version.
func (o *options) forced(r *labkit.Run) error {
	o.service = newService(o.period())
	around := &surroundings{parent: o.service.ctx, period: o.period()}
	round := 0
	for _, size := range *o.sizes {
		for i := 0; i < *o.rounds; i++ {
			parameters := map[string]string{"round": strconv.Itoa(round), "size": strconv.Itoa(size)}
			if err := o.plant(r, parameters, size, around); err != nil {
				return err
			}
			if err := o.serve(r, parameters, round); err != nil {
				return err
			}
			round++
		}
	}
	o.settled = labkit.Monotonic()
	return nil
}

// plant is exact: before the segment every goroutine is at rest, so that nothing but what is planted begins, ends or parks in it, the
// loops aside. Each leak is seen parked and each answered request gone before it is left: a goroutine is not in a dump any more
// when gdestroy (goexit0 in Go 1.21) has begun, where the probe is.
func (o *options) plant(r *labkit.Run, parameters map[string]string, size int, around *surroundings) error {
	all := kinds()
	leaks := make([]planted, len(all)*size)
	answered := make([]planted, size)
	answers := make([]chan int, size)
	for i := range answers {
		answers[i] = make(chan int, 1)
	}
	s, err := r.Segment("forced", parameters)
	if err != nil {
		return err
	}
	s.Expected["created"] = int64(len(leaks) + len(answered))
	s.Expected["ended"] = int64(len(answered))
	for _, k := range all {
		if k.counter != "" {
			s.Expected[k.counter] = int64(size)
		}
	}
	runtime.GC()
	if err := quiescent(); err != nil {
		return err
	}
	err = s.Quiet(func() error {
		for i, k := range all {
			for j := 0; j < size; j++ {
				p := &leaks[i*size+j]
				p.kind, p.reason = k.name, k.reason
				k.start(p, around)
			}
		}
		for i := range answered {
			fetch(&answered[i], answers[i])
		}
		return await(func(states map[int64]string) bool { return arrived(leaks, states) && gone(answered, states) })
	})
	if err != nil {
		return err
	}
	for i := range leaks {
		s.Goroutine(leaks[i].kind, leaks[i].id.Load())
		o.leaks = append(o.leaks, &leaks[i])
	}
	for i := range answered {
		s.Goroutine(wellAnswered, answered[i].id.Load())
	}
	return nil
}

// serve lets the service work, and counts goroutines as programs do that watch themselves: all of them, and by function.
func (o *options) serve(r *labkit.Run, parameters map[string]string, round int) error {
	s, err := r.Segment("work", parameters)
	if err != nil {
		return err
	}
	s.Enter()
	err = o.service.work(round)
	if err == nil {
		err = quiescent()
	}
	s.Leave()
	s.Counts["goroutines"] = int64(runtime.NumGoroutine())
	profileByFunction(s)
	return err
}

// arrived says whether all leaks are parked at once: loops run again only from time to time.
func arrived(leaks []planted, states map[int64]string) bool {
	for i := range leaks {
		p := &leaks[i]
		if id := p.id.Load(); id == 0 || states[id] != p.reason {
			return false
		}
	}
	return true
}

func gone(answered []planted, states map[int64]string) bool {
	for i := range answered {
		id := answered[i].id.Load()
		if _, there := states[id]; id == 0 || there {
			return false
		}
	}
	return true
}

// quiescent returns when every other goroutine waits, so that none is about to end.
func quiescent() error {
	own := labkit.GoroutineID()
	return await(func(states map[int64]string) bool {
		for id, state := range states {
			if id != own && (state == "running" || state == "runnable" || state == "syscall") {
				return false
			}
		}
		return true
	})
}

func await(there func(map[int64]string) bool) error {
	pause := 200 * time.Microsecond
	for deadline := time.Now().Add(patience); ; {
		states := labkit.Goroutines()
		if there(states) {
			return nil
		}
		if time.Now().After(deadline) {
			return errors.New("after " + patience.String() + " goroutines are not where they were sent: " + sum(states))
		}
		time.Sleep(pause)
		if pause < 5*time.Millisecond {
			pause *= 2
		}
	}
}

func sum(states map[int64]string) string {
	counts := map[string]int{}
	for _, state := range states {
		counts[state]++
	}
	var words []string
	for state, n := range counts {
		words = append(words, strconv.Itoa(n)+" "+state)
	}
	return strings.Join(words, ", ")
}
