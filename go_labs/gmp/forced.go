package main

import (
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"kmlab/labkit"
)

const (
	onCond      = "sync.Cond.Wait"
	onWaitGroup = "sync.WaitGroup.Wait" // Go 1.24 and newer
	onSemaphore = "semacquire"          // what a WaitGroup's waiters were before
	inSyscall   = "syscall"
	pause       = time.Millisecond
)

// forcedScenes: what happens a known number of times, whatever the scheduler does meanwhile. No scene depends on who is preempted when,
// because sysmon takes a P away whenever a machine is slow (runtime/proc.go, retake).
func forcedScenes() []scene {
	return []scene{
		{"ping-pong", 1, pingPong}, {"ping-pong", 2, pingPong}, {"yields", 1, yields}, {"starts", 0, starts},
		{"chan receive", 0, receivers}, {"chan send", 0, senders}, {"select", 0, selectors}, {"sleep", 0, sleepers},
		{"IO wait", 0, pollers}, {"sync.Mutex.Lock", 0, lockers}, {"sync.RWMutex.RLock", 0, readers}, {"sync.RWMutex.Lock", 0, writers},
		{"sync.Cond.Wait", 0, conditions}, {"WaitGroup", 0, groups}, {"system calls", 0, callers},
	}
}

func (o *options) forced(r *labkit.Run) error {
	for _, n := range *o.sizes {
		for _, c := range forcedScenes() {
			if err := c.play(r, "forced", n); err != nil {
				return err
			}
		}
	}
	return nil
}

// hand gives a token to a goroutine that waits for it, and returns only when it has: a send that does not block succeeds on an
// unbuffered channel only if a receiver is queued (runtime/chan.go, chansend), and a receiver queues itself and calls gopark under
// the same hold of the channel's lock. So whoever receives has always parked, and nobody parks to send.
func hand(c chan<- struct{}, tries *int64) {
	for {
		select {
		case c <- struct{}{}:
			return
		default:
			*tries++
			runtime.Gosched()
		}
	}
}

// pingPong: two goroutines hand a token to and fro 10·n times. Each of the 20·n receives parks once, whoever is preempted; at
// GOMAXPROCS=1 the other one is then in runnext and runs at once.
func pingPong(s *labkit.Segment, n int) error {
	return rally(s, 10*n, false)
}

func rally(s *labkit.Segment, rounds int, locked bool) error {
	ping, pong := make(chan struct{}), make(chan struct{})
	var mine, theirs int64
	s.Counts["rounds"] = int64(rounds)
	expectParks(s, labkit.OnReceive, 2*rounds)
	s.Expected["ready"] = int64(2 * rounds)
	wait := crew(s, 1, func(int) {
		defer lockThread(locked)()
		for i := 0; i < rounds; i++ {
			<-ping
			hand(pong, &theirs)
		}
	}, nap) // time.Sleep would be one more ready
	unlock := lockThread(locked)
	for i := 0; i < rounds; i++ {
		hand(ping, &mine)
		<-pong
	}
	unlock()
	s.Counts["yields"] += mine
	wait()
	s.Counts["yields"] += theirs
	s.Expected["yield"] = s.Counts["yields"]
	return nil
}

// yields: two goroutines call Gosched 10·n times each.
func yields(s *labkit.Segment, n int) error {
	wait := crew(s, 1, func(int) {
		for i := 0; i < 10*n; i++ {
			runtime.Gosched()
		}
	})
	for i := 0; i < 10*n; i++ {
		yield(s)
	}
	wait()
	s.Expected["yield"] += int64(10 * n)
	return nil
}

// starts: n goroutines begin and end.
func starts(s *labkit.Segment, n int) error {
	crew(s, n, func(int) {})()
	return nil
}

// seen waits until n goroutines are seen parked, lets them go with release in any case, and then waits for their end.
func seen(reason string, n int, release func(), wait func()) error {
	err := labkit.AwaitParked(reason, already[reason]+n)
	release()
	if err == nil {
		wait()
	}
	return err
}

// receivers: nobody has sent when they receive, so each parks; a close wakes them all at once.
func receivers(s *labkit.Segment, n int) error {
	expectParks(s, labkit.OnReceive, n)
	c := make(chan struct{})
	wait := crew(s, n, func(int) { <-c })
	return seen(labkit.OnReceive, n, func() { close(c) }, wait)
}

// senders: nobody has received when they send.
func senders(s *labkit.Segment, n int) error {
	expectParks(s, labkit.OnSend, n)
	c := make(chan struct{})
	wait := crew(s, n, func(int) { c <- struct{}{} })
	return seen(labkit.OnSend, n, func() {
		for i := 0; i < n; i++ {
			<-c
		}
	}, wait)
}

func selectors(s *labkit.Segment, n int) error {
	expectParks(s, labkit.OnSelect, n)
	c, never := make(chan struct{}), make(chan struct{})
	wait := crew(s, n, func(int) {
		select {
		case <-c:
		case <-never:
		}
	})
	return seen(labkit.OnSelect, n, func() { close(c) }, wait)
}

// sleepers: each call of time.Sleep with a positive time parks once (runtime/time.go, timeSleep). Nothing else sleeps here:
// the waiting is done in nanosleep(2), and the scavenger, which parks for the same reason, has nothing to do before the first collection.
func sleepers(s *labkit.Segment, n int) error {
	expectParks(s, labkit.OnSleep, n)
	crew(s, n, func(int) { time.Sleep(pause) }, nap)()
	return nil
}

// pollers: each waits on a pipe of its own that is written to when all are seen parked; what the poller wakes finds its byte.
func pollers(s *labkit.Segment, n int) error {
	expectParks(s, labkit.OnNetwork, n)
	ends := make([][2]*os.File, n)
	for i := range ends {
		r, w, err := os.Pipe()
		if err != nil {
			return err
		}
		defer r.Close()
		defer w.Close()
		ends[i] = [2]*os.File{r, w}
	}
	fail := make([]error, n+1)
	wait := crew(s, n, func(i int) {
		var b [1]byte
		_, fail[i] = ends[i][0].Read(b[:])
	})
	if err := seen(labkit.OnNetwork, n, func() {
		for i := range ends {
			if _, err := ends[i][1].Write([]byte{1}); err != nil {
				fail[n] = err
			}
		}
	}, wait); err != nil {
		return err
	}
	return first(fail)
}

// lockers: as in the lab mutex, whoever is woken finds the lock free.
func lockers(s *labkit.Segment, n int) error {
	expectParks(s, labkit.OnMutex, n)
	var m sync.Mutex
	m.Lock()
	wait := crew(s, n, func(int) {
		m.Lock()
		defer m.Unlock()
	})
	return seen(labkit.OnMutex, n, m.Unlock, wait)
}

func readers(s *labkit.Segment, n int) error {
	expectParks(s, labkit.OnRWMutexRead, n)
	var m sync.RWMutex
	m.Lock()
	wait := crew(s, n, func(int) {
		m.RLock()
		defer m.RUnlock()
	})
	return seen(labkit.OnRWMutexRead, n, m.Unlock, wait)
}

// writers: one waits for the reader, the others for the Mutex that it holds.
func writers(s *labkit.Segment, n int) error {
	expectParks(s, labkit.OnRWMutex, 1)
	expectParks(s, labkit.OnMutex, n-1)
	var m sync.RWMutex
	m.RLock()
	wait := crew(s, n, func(int) {
		m.Lock()
		defer m.Unlock()
	})
	err := labkit.AwaitParked(labkit.OnRWMutex, already[labkit.OnRWMutex]+1)
	if err != nil {
		m.RUnlock()
		return err
	}
	return seen(labkit.OnMutex, n-1, m.RUnlock, wait)
}

// conditions: Wait parks once unless it was notified before, which nobody does until all are seen parked (runtime/sema.go,
// notifyListWait). How many then wait for the Mutex depends on the scheduler, and is not expected.
func conditions(s *labkit.Segment, n int) error {
	expectParks(s, onCond, n)
	var m sync.Mutex
	cond := sync.NewCond(&m)
	wait := crew(s, n, func(int) {
		m.Lock()
		cond.Wait()
		m.Unlock()
	})
	return seen(onCond, n, cond.Broadcast, wait)
}

// groups: Done releases every waiter of a WaitGroup at once.
func groups(s *labkit.Segment, n int) error {
	reason := waitGroupReason()
	expectParks(s, reason, n)
	var group sync.WaitGroup
	group.Add(1)
	wait := crew(s, n, func(int) { group.Wait() })
	return seen(reason, n, group.Done, wait)
}

// waitGroupReason is what this version calls it: Go 1.24 gave it a name of its own (runtime/runtime2.go).
func waitGroupReason() string {
	for _, old := range []string{"go1.21", "go1.22", "go1.23"} {
		if strings.HasPrefix(runtime.Version(), old+".") || runtime.Version() == old {
			return onSemaphore
		}
	}
	return onWaitGroup
}

// callers: n goroutines block in read(2) on a pipe, so that n threads do. They do not park: Go shows them "in syscall". Each of the 2·n
// calls of read and write goes through entersyscall once, as do the two of close; pipe2 does not (a raw call). A signal restarts them in the
// kernel (SA_RESTART).
func callers(s *labkit.Segment, n int) error {
	var ends [2]int
	if err := syscall.Pipe(ends[:]); err != nil {
		return err
	}
	defer syscall.Close(ends[0])
	defer syscall.Close(ends[1])
	s.Expected["enter_syscall"] = int64(2*n + 2)
	fail := make([]error, n+1)
	wait := crew(s, n, func(i int) {
		var b [1]byte
		_, fail[i] = syscall.Read(ends[0], b[:])
	})
	if err := seen(inSyscall, n, func() {
		for i := 0; i < n; i++ {
			if _, err := syscall.Write(ends[1], []byte{1}); err != nil {
				fail[n] = err
			}
		}
	}, wait); err != nil {
		return err
	}
	return first(fail)
}

func first(errs []error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
