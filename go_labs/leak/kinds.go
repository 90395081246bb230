package main

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"kmlab/labkit"
)

// planted is one goroutine that the workload knows of: it says its id before it waits.
type planted struct {
	kind   string
	reason string // with which it waits in the end
	id     atomic.Int64
}

func (p *planted) here() { p.id.Store(labkit.GoroutineID()) }

// kind is one way to leak a goroutine. Each start function has one go statement, its creation site; it is never inlined, so that the
// goroutine's function has the same name in every version: main.NAME.func1.
type kind struct {
	name    string
	reason  string
	counter string // of the trace, where nothing else parks so; else empty
	start   func(*planted, *surroundings)
}

// surroundings is what a leak may refer to: the service's context, and the time between two rounds of a forgotten loop.
type surroundings struct {
	parent context.Context
	period time.Duration
}

func kinds() []kind {
	return []kind{
		{"nil-receive", labkit.OnNilReceive, "park:" + labkit.OnNilReceive, nilReceive},
		{"nil-send", labkit.OnNilSend, "park:" + labkit.OnNilSend, nilSend},
		{"lost-receiver", labkit.OnSend, "park:" + labkit.OnSend, lostReceiver},
		// The ticker loops and the workload itself receive from channels, too.
		{"lost-sender", labkit.OnReceive, "", lostSender},
		{"ticker", labkit.OnReceive, "", tickerLoop},
		{"polling", labkit.OnSleep, "", pollingLoop},
		{"no-cancel", labkit.OnSelect, "park:" + labkit.OnSelect, noCancel},
		{"waitgroup", labkit.OnWaitGroup(), waitGroupCounter(), waitGroup},
		{"mutex", labkit.OnMutex, "park_mutex", lockedMutex},
		{"cond", labkit.OnCond, "park:" + labkit.OnCond, neverSignalled},
	}
}

// waitGroupCounter is empty before Go 1.24, where a WaitGroup's wait is one on any of the runtime's semaphores.
func waitGroupCounter() string {
	if reason := labkit.OnWaitGroup(); reason != labkit.OnSemaphore {
		return "park:" + reason
	}
	return ""
}

type feed struct{ updates chan int }

// The channel was never made.
//
//go:noinline
func nilReceive(p *planted, _ *surroundings) {
	f := &feed{}
	go func() {
		p.here()
		<-f.updates
	}()
}

// The same from the other side.
//
//go:noinline
func nilSend(p *planted, _ *surroundings) {
	f := &feed{}
	go func() {
		p.here()
		f.updates <- 1
	}()
}

// The one who asked has given up.
//
//go:noinline
func lostReceiver(p *planted, _ *surroundings) {
	fetch(p, make(chan int))
}

// fetch is the place of a lost receiver and of requests that go well, where the channel has room: not each goroutine
// of a site that leaks is a leak.
//
//go:noinline
func fetch(p *planted, answer chan<- int) {
	go func() {
		p.here()
		answer <- 1
	}()
}

// The producer returned and did not close.
//
//go:noinline
func lostSender(p *planted, _ *surroundings) {
	jobs := make(chan int)
	go func() {
		p.here()
		for range jobs {
		}
	}()
}

// Nobody stops the ticker, and the loop has no other way out.
//
//go:noinline
func tickerLoop(p *planted, around *surroundings) {
	go func() {
		p.here()
		for range time.NewTicker(around.period).C {
		}
	}()
}

// It waits for something that will not happen.
//
//go:noinline
func pollingLoop(p *planted, around *surroundings) {
	var ready atomic.Bool
	go func() {
		p.here()
		for !ready.Load() {
			time.Sleep(around.period)
		}
	}()
}

// Whoever gets the function that ends it drops it.
//
//go:noinline
func noCancel(p *planted, around *surroundings) {
	_ = watch(p, around.parent)
}

//go:noinline
func watch(p *planted, parent context.Context) context.CancelFunc {
	ctx, cancel := context.WithCancel(parent)
	updates := make(chan int)
	go func() {
		p.here()
		select {
		case <-ctx.Done():
		case <-updates:
		}
	}()
	return cancel
}

// A worker returned early, before its Done.
//
//go:noinline
func waitGroup(p *planted, _ *surroundings) {
	var workers sync.WaitGroup
	workers.Add(1)
	go func() {
		p.here()
		workers.Wait()
	}()
}

type account struct {
	mutex   sync.Mutex
	balance int
}

// The caller returns with the lock.
//
//go:noinline
func lockedMutex(p *planted, _ *surroundings) {
	a := &account{}
	a.mutex.Lock()
	go func() {
		p.here()
		a.mutex.Lock()
		a.balance++
		a.mutex.Unlock()
	}()
}

type gate struct {
	opened *sync.Cond
	open   bool
}

// Nobody opens it.
//
//go:noinline
func neverSignalled(p *planted, _ *surroundings) {
	g := &gate{opened: sync.NewCond(&sync.Mutex{})}
	go func() {
		p.here()
		g.opened.L.Lock()
		for !g.open {
			g.opened.Wait()
		}
		g.opened.L.Unlock()
	}()
}
