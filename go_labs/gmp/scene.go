package main

import (
	"fmt"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"kmlab/labkit"
)

// glance is the time between two looks at whether something has happened.
const glance = 200 * time.Microsecond

// scene is a stretch in which known things happen to goroutines; n is its size.
type scene struct {
	name  string
	procs int // GOMAXPROCS, 0 leaves it
	run   func(s *labkit.Segment, n int) error
}

// play runs a scene in a segment of its own, with the collector off: it has goroutines that would count, too.
func (c scene) play(r *labkit.Run, section string, n int) error {
	return c.playWith(r, section, n, nil)
}

// playWith does so inside around, where it is given.
func (c scene) playWith(r *labkit.Run, section string, n int, around func(func() error) error) error {
	if c.procs > 0 {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(c.procs))
	}
	s, err := r.Segment(section, map[string]string{
		"scene": c.name, "size": strconv.Itoa(n), "procs": strconv.Itoa(runtime.GOMAXPROCS(0)),
	})
	if err != nil {
		return err
	}
	already = labkit.Parked()
	body := func() error {
		before := threadSwitches(wholeProcess)
		err := s.Quiet(func() error { return c.run(s, n) })
		s.Counts["thread_switches"] += threadSwitches(wholeProcess).all() - before.all()
		return err
	}
	if around == nil {
		err = body()
	} else {
		err = around(body)
	}
	if err != nil {
		return fmt.Errorf("%s, %s of %d: %w", section, c.name, n, err)
	}
	return nil
}

// yield calls runtime.Gosched and counts it, so that the traced number must be the same.
func yield(s *labkit.Segment) {
	s.Counts["yields"]++
	runtime.Gosched()
}

// already holds how many goroutines were parked before the scene, by wait reason: under go test there are some.
var already map[string]int

// politeYields is how often the end of a crew is looked for before the looking becomes a wait: more would fill the trace.
const politeYields = 3

// crew starts n goroutines and expects that many to be created and to end. The returned function waits until they have: it polls
// NumGoroutine, which no longer counts a goroutine once gdestroy (goexit0 up to Go 1.21) has put its g back (runtime/proc.go). Between looks
// it first yields, which is counted, then rests: time.Sleep, or what a scene that counts sleeps gives.
func crew(s *labkit.Segment, n int, body func(i int), rest ...func(time.Duration)) (wait func()) {
	before := runtime.NumGoroutine()
	s.Expected["created"] += int64(n)
	s.Expected["ended"] += int64(n)
	for i := 0; i < n; i++ {
		i := i
		go func() { body(i) }()
	}
	rest = append(rest, time.Sleep)
	return func() {
		for polls := 0; runtime.NumGoroutine() > before; polls++ {
			if polls < politeYields {
				yield(s)
			} else {
				rest[0](glance)
			}
		}
		s.Expected["yield"] = s.Counts["yields"]
	}
}

// expectParks says that n goroutines park for that reason, in the runtime's own words.
func expectParks(s *labkit.Segment, reason string, n int) {
	s.Expected["park:"+reason] += int64(n)
}

type switched struct{ voluntary, involuntary int64 }

func (s switched) all() int64 { return s.voluntary + s.involuntary }

const (
	wholeProcess = syscall.RUSAGE_SELF
	thisThread   = 1 // RUSAGE_THREAD, include/uapi/linux/resource.h
)

// threadSwitches is the kernel's own account of how often threads left a CPU: an oracle for sched_switch.
func threadSwitches(who int) switched {
	var usage syscall.Rusage
	if err := syscall.Getrusage(who, &usage); err != nil {
		panic("getrusage: " + err.Error())
	}
	return switched{usage.Nvcsw, usage.Nivcsw}
}
