package main

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"kmlab/labkit"
)

const (
	// markWhich is no argument that getpriority knows, so the call does nothing but be seen: bpf/bpftrace/sched_switch.bt and bpf/bcc/sched_switch.py
	// read the segment from it.
	markWhich = 0x676d70
	asleep    = 5 * time.Millisecond
	// patientLooks bounds the waiting for a thread to block: what comes of it is seen in the counts.
	patientLooks = 2000
	alone        = 8 // one waits at a time in 1/alone of the rounds
)

// watched is for tools that look at sched_switch. Goroutines park for known reasons: a burst of n, which the threads' work hides; then
// one at a time while there is nothing else to do, so that a thread falls asleep for each. Two controls follow: a thread that blocks in
// read(2), and one that sleeps in nanosleep(2), so often.
func (o *options) watched(r *labkit.Run) error {
	n := *o.kernel
	for _, c := range []struct {
		scene
		n int
	}{
		{scene{"burst: chan receive", 0, receivers}, n}, {scene{"burst: sync.Mutex.Lock", 0, lockers}, n},
		{scene{"burst: IO wait", 0, pollers}, n}, {scene{"burst: sleep", 0, sleepers}, n},
		{scene{"alone: chan receive", 0, receiveAlone}, n / alone}, {scene{"alone: sync.Mutex.Lock", 0, lockAlone}, n / alone},
		{scene{"alone: IO wait", 0, pollAlone}, n / alone}, {scene{"alone: sleep", 0, sleepAlone}, n / alone},
		{scene{"thread: read", 0, threadReads}, n / alone}, {scene{"thread: nanosleep", 0, threadSleeps}, n / alone},
	} {
		run := c.run
		c.run = func(s *labkit.Segment, n int) error {
			s.Counts["parks"] = int64(n)
			tell(s.ID)
			defer tell(0)
			return run(s, n)
		}
		if err := c.play(r, "kernel", c.n); err != nil {
			return err
		}
	}
	return nil
}

// tell says to whoever looks at system calls which segment this is.
func tell(segment int) {
	syscall.RawSyscall(syscall.SYS_GETPRIORITY, markWhich, uintptr(segment), 0)
}

// waker starts a goroutine on a thread of its own that calls wake for each of n rounds when enough time has passed for everybody else to
// fall asleep, and returns a function that waits for its end.
func waker(s *labkit.Segment, n int, wake func() error) (wait func() error) {
	var failed error
	ended := crew(s, 1, func(int) {
		defer lockThread(true)()
		for i := 0; i < n && failed == nil; i++ {
			nap(asleep)
			failed = wake()
		}
	})
	return func() error {
		ended()
		return failed
	}
}

func receiveAlone(s *labkit.Segment, n int) error {
	expectParks(s, labkit.OnReceive, n)
	c := make(chan struct{})
	var tries int64
	wait := waker(s, n, func() error {
		hand(c, &tries)
		return nil
	})
	for i := 0; i < n; i++ {
		<-c
	}
	s.Counts["yields"] += tries
	return wait()
}

// lockAlone: each round has a lock of its own, which somebody lets go of after a while.
func lockAlone(s *labkit.Segment, n int) error {
	for i := 0; i < n; i++ {
		var m sync.Mutex
		m.Lock()
		wait := waker(s, 1, func() error {
			m.Unlock()
			return nil
		})
		m.Lock()
		if err := wait(); err != nil {
			return err
		}
	}
	return nil
}

func pollAlone(s *labkit.Segment, n int) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	defer w.Close()
	wait := waker(s, n, func() error {
		_, err := w.Write([]byte{1})
		return err
	})
	for i := 0; i < n; i++ {
		var b [1]byte
		if _, err := r.Read(b[:]); err != nil {
			return err
		}
	}
	return wait()
}

func sleepAlone(s *labkit.Segment, n int) error {
	expectParks(s, labkit.OnSleep, n)
	for i := 0; i < n; i++ {
		time.Sleep(asleep)
	}
	return nil
}

// threadReads: a thread blocks in read(2) n times: it is written to when the kernel says that it does. The kernel's own account of
// that thread's switches stands beside it.
func threadReads(s *labkit.Segment, n int) error {
	var ends [2]int
	if err := syscall.Pipe(ends[:]); err != nil {
		return err
	}
	defer syscall.Close(ends[0])
	defer syscall.Close(ends[1])
	var failed error
	var before, after switched
	var thread, begun atomic.Int64
	wait := crew(s, 1, func(int) {
		defer lockThread(true)()
		thread.Store(tid())
		before = threadSwitches(thisThread)
		for i := 0; i < n && failed == nil; i++ {
			var b [1]byte
			begun.Add(1)
			_, failed = syscall.Read(ends[0], b[:])
		}
		after = threadSwitches(thisThread)
	})
	for i := 0; i < n; i++ {
		nap(asleep)
		for looks := 0; looks < patientLooks && begun.Load() <= int64(i); looks++ {
			nap(asleep)
		}
		for looks := 0; looks < patientLooks && !blockedIn(thread.Load(), syscall.SYS_READ); looks++ {
			nap(glance)
		}
		if _, err := syscall.Write(ends[1], []byte{1}); err != nil {
			return err
		}
	}
	wait()
	s.Counts["voluntary"] = after.voluntary - before.voluntary
	return failed
}

// blockedIn says whether a thread of this process sleeps in that system call. The kernel answers with the number of a call only for a thread that
// has left its CPU (proc_pid_syscall in fs/proc/base.c); where it has no such file, time must do.
func blockedIn(thread int64, call int) bool {
	text, err := os.ReadFile("/proc/self/task/" + strconv.FormatInt(thread, 10) + "/syscall")
	return err != nil || strings.HasPrefix(string(text), strconv.Itoa(call)+" ")
}

// threadSleeps: a thread sleeps in nanosleep(2) n times, and is woken by its timer each time.
func threadSleeps(s *labkit.Segment, n int) error {
	var before, after switched
	wait := crew(s, 1, func(int) {
		defer lockThread(true)()
		before = threadSwitches(thisThread)
		for i := 0; i < n; i++ {
			nap(asleep)
		}
		after = threadSwitches(thisThread)
	})
	wait()
	s.Counts["voluntary"] = after.voluntary - before.voluntary
	if s.Counts["voluntary"] == 0 {
		return errors.New("the kernel counted no switch of a thread that slept " + strconv.Itoa(n) + " times")
	}
	return nil
}
