package main

import (
	"errors"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"kmlab/labkit"
)

const (
	stolenEach   = 8   // goroutines that wait on one P in each round of steals
	overflowSize = 600 // more than a local queue's 256 (runtime/runtime2.go, p.runq) and its runnext hold
	tickRounds   = 61  // schedule looks at the global queue first in every 61st round (runtime/proc.go)
	patience     = 20 * time.Second
)

// order decides by order and existence who ran where and after whom; no figure of it is a time.
func (o *options) order(r *labkit.Run) error {
	for _, c := range []scene{
		{"P moves", 1, moves}, {"preemption", 1, preempted}, {"local queue", 1, localQueue}, {"local overflow", 1, localOverflow},
		{"global queue", 1, globalQueue}, {"stealing", 2, steals},
	} {
		if err := c.play(r, "order", *o.rounds); err != nil {
			return err
		}
	}
	return nil
}

// tid is the calling thread's; a raw call, so that the scheduler does not notice it.
func tid() int64 {
	id, _, _ := syscall.RawSyscall(syscall.SYS_GETTID, 0, 0, 0)
	return int64(id)
}

func lockThread(locked bool) (unlock func()) {
	if !locked {
		return func() {}
	}
	runtime.LockOSThread()
	return runtime.UnlockOSThread
}

// moves: there is one P. A goroutine blocks in read(2) on its thread; that another one runs Go code meanwhile, on another thread, shows
// that the P moved there. The round is over when the goroutine is back.
func moves(s *labkit.Segment, rounds int) error {
	var ends [2]int
	if err := syscall.Pipe(ends[:]); err != nil {
		return err
	}
	defer syscall.Close(ends[0])
	defer syscall.Close(ends[1])
	threads := map[int64]bool{}
	s.Counts["rounds"] = int64(rounds)
	s.Counts["moved"] = 0
	var inside, back atomic.Int64
	var failed atomic.Pointer[error]
	wait := crew(s, 1, func(int) {
		var b [1]byte
		for i := 0; i < rounds; i++ {
			inside.Store(tid())
			if _, err := syscall.Read(ends[0], b[:]); err != nil {
				failed.Store(&err)
			}
			inside.Store(0)
			back.Add(1)
		}
	})
	for i := 0; i < rounds; i++ {
		for inside.Load() == 0 {
			yield(s)
		}
		here, there := tid(), inside.Load()
		threads[here], threads[there] = true, true
		if here != there {
			s.Counts["moved"]++
		}
		if _, err := syscall.Write(ends[1], []byte{1}); err != nil {
			return err
		}
		for polls := 0; back.Load() <= int64(i); polls++ {
			if polls < politeYields {
				yield(s)
			} else {
				time.Sleep(glance)
			}
		}
	}
	wait()
	s.Counts["threads"] = int64(len(threads))
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// preempted: there is one P, and a goroutine that calls nothing. Whoever yields to it gets the P back only if it is taken from that one:
// each return of Gosched while it still spins is a preemption that happened.
func preempted(s *labkit.Segment, rounds int) error {
	var spins, stop atomic.Bool
	s.Counts["rounds"] = int64(rounds)
	wait := crew(s, 1, func(int) {
		s.Goroutine("spinner", labkit.GoroutineID())
		spins.Store(true)
		for !stop.Load() { // compiled without a call, in every version
		}
	})
	for !spins.Load() {
		yield(s)
	}
	s.Counts["returned"] = 0
	for i := 0; i < rounds; i++ {
		yield(s)
		s.Counts["returned"]++
	}
	stop.Store(true)
	wait()
	return nil
}

// localQueue: one P, and a goroutine that creates others and only then lets go. The last one created runs first, from runnext, the
// others in the order they were made (runqput, runqget), unless the creator was preempted in between.
func localQueue(s *labkit.Segment, rounds int) error {
	const each = 16
	s.Counts["rounds"], s.Counts["in_order"], s.Counts["last_first"] = int64(rounds), 0, 0
	for i := 0; i < rounds; i++ {
		var turn atomic.Int64
		var at [each]int64
		crew(s, each, func(i int) { at[i] = turn.Add(1) })()
		if at[each-1] == 1 {
			s.Counts["last_first"]++
		}
		inOrder := true
		for i := 1; i < each-1; i++ {
			inOrder = inOrder && at[i] == at[i-1]+1
		}
		if inOrder {
			s.Counts["in_order"]++
		}
	}
	return nil
}

// localOverflow: more goroutines than a local queue holds: half of it goes to the global one, each time that it is full.
func localOverflow(s *labkit.Segment, _ int) error {
	crew(s, overflowSize, func(int) {})()
	return nil
}

// globalQueue: one P, and one goroutine that yields. Gosched puts it on the global queue, so each time it comes from there: in every 61st
// round by the look that comes first, which from Go 1.25 on no probe sees.
func globalQueue(s *labkit.Segment, rounds int) error {
	for i := 0; i < rounds*tickRounds; i++ {
		yield(s)
	}
	s.Counts["ticks"] = int64(rounds)
	s.Expected["yield"] = s.Counts["yields"]
	return nil
}

// steals: two Ps. A goroutine makes others, which wait on its own P, and does not let go of it until one of them has run: that one was
// taken by the other P, or the creator was preempted. It stays on its thread, so that a goroutine on another one tells of the first.
func steals(s *labkit.Segment, rounds int) error {
	defer lockThread(true)()
	s.Counts["rounds"], s.Counts["elsewhere"] = int64(rounds), 0
	mine := tid()
	for i := 0; i < rounds; i++ {
		var ran, elsewhere atomic.Int64
		deadline := time.Now().Add(patience)
		wait := crew(s, stolenEach, func(int) {
			if tid() != mine {
				elsewhere.Add(1)
			}
			ran.Add(1)
		})
		for ran.Load() == 0 {
			if time.Now().After(deadline) {
				return errors.New("no goroutine ran beside its creator")
			}
		}
		if elsewhere.Load() > 0 {
			s.Counts["elsewhere"]++
		}
		wait()
	}
	return nil
}
