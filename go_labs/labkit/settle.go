package labkit

import (
	"runtime"
	"sync/atomic"
	"time"
)

const (
	spareThreads = 16 // more than a lab here runs at once: GOMAXPROCS, the runtime's own, and what a pause wakes
	spareTimers  = 16 // more than the runtime itself ever has on one P: the scavenger's, and that of a sleeper
)

// Settle makes the runtime allocate now what it would allocate at some later time, in the middle of a section that counts
// allocations exactly: threads (allocm and malg; preemption alone can make the scheduler want one) and the timers' heap of
// each P (the scavenger sleeps on a timer, wherever it runs). Neither is given back: a thread of the runtime ends only with
// a goroutine that stays locked to it, and the heap of timers keeps its room.
func Settle() {
	threads(spareThreads)
	timers(spareTimers)
	// The mark workers are started by the first collection (gcBgMarkStartWorkers, runtime/mgc.go).
	runtime.GC()
}

// threads sees to it that n threads exist, by that many goroutines at once that are locked to theirs.
func threads(n int) {
	locked, leave, left := make(chan struct{}), make(chan struct{}), make(chan struct{})
	for i := 0; i < n; i++ {
		go func() {
			runtime.LockOSThread()
			locked <- struct{}{}
			<-leave
			runtime.UnlockOSThread()
			left <- struct{}{}
		}()
	}
	for i := 0; i < n; i++ {
		<-locked
	}
	close(leave)
	for i := 0; i < n; i++ {
		<-left
	}
}

// timers lets n timers stand on every P at once: as many goroutines as there are Ps start them while all of them run.
func timers(n int) {
	all := int64(runtime.GOMAXPROCS(0))
	var running, stopped atomic.Int64
	left := make(chan struct{}, all)
	for i := int64(0); i < all; i++ {
		go func() {
			list := make([]*time.Timer, 0, n)
			for running.Add(1); running.Load() < all; {
				// None yields its P, so that each has one.
			}
			for len(list) < n {
				// A timer with a channel is on no P's heap before somebody waits for it (Go 1.23, runtime/time.go).
				list = append(list, time.AfterFunc(time.Hour, func() {}))
			}
			for stopped.Add(1); stopped.Load() < all; {
			}
			for _, timer := range list {
				timer.Stop()
			}
			left <- struct{}{}
		}()
	}
	for i := int64(0); i < all; i++ {
		<-left
	}
}
