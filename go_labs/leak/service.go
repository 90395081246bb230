package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"kmlab/labkit"
)

const (
	poolAtFirst = 4
	poolGrowth  = 2
	fanOut      = 8
)

// service is what the leaks are planted beside: goroutines that live long and may, most of them started by the first work that needs them.
// Each begins with a function of its own: the wrapper that `go v.worker()` is compiled to is in no profile (runtime/traceback.go).
type service struct {
	period time.Duration
	ctx    context.Context
	cancel context.CancelFunc
	reload chan string

	first   sync.Once
	failed  error
	server  http.Server
	address string
	client  http.Client
	jobs    chan *sync.WaitGroup
	lease   chan struct{}
	swept   atomic.Int64
	served  atomic.Int64
}

func newService(period time.Duration) *service {
	v := &service{period: period, reload: make(chan string), jobs: make(chan *sync.WaitGroup)}
	v.ctx, v.cancel = context.WithCancel(context.Background())
	v.client.Transport = &http.Transport{}
	v.server.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		v.served.Add(1)
		fmt.Fprintln(w, "well")
	})
	go func() { v.watchReload() }()
	go func() { v.awaitShutdown() }()
	return v
}

// watchReload waits for something that seldom comes.
func (v *service) watchReload() {
	for range v.reload {
	}
}

func (v *service) awaitShutdown() {
	<-v.ctx.Done()
	v.server.Close()
}

// start begins what the first work needs: a server, its janitor, the first workers of the pool.
func (v *service) start() error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	v.address = "http://" + listener.Addr().String()
	go func() { v.serve(listener) }()
	go func() { v.janitor() }()
	v.grow(poolAtFirst)
	return nil
}

func (v *service) serve(listener net.Listener) { _ = v.server.Serve(listener) }

// janitor has a ticker and no end, and is meant so.
func (v *service) janitor() {
	for range time.NewTicker(v.period).C {
		v.swept.Add(1)
	}
}

func (v *service) grow(n int) {
	for i := 0; i < n; i++ {
		go func() { v.worker() }()
	}
}

func (v *service) worker() {
	for done := range v.jobs {
		done.Done()
	}
}

// renew replaces the goroutine that keeps the lease: one is created in every round, and one is there.
func (v *service) renew() {
	if v.lease != nil {
		close(v.lease)
	}
	lost := make(chan struct{})
	v.lease = lost
	go func() { v.keep(lost) }()
}

func (v *service) keep(lost chan struct{}) {
	select {
	case <-lost:
	case <-v.ctx.Done():
	}
}

// work is the service's part of round number n: what it needs lazily, requests on a connection that stays open, jobs for the pool,
// goroutines for one piece of work each.
func (v *service) work(n int) error {
	v.first.Do(func() { v.failed = v.start() })
	if v.failed != nil {
		return v.failed
	}
	if n == 1 {
		v.grow(poolGrowth) // the second round has more load than the first
	}
	v.renew()
	for i := 0; i < 2; i++ {
		if err := v.request(); err != nil {
			return err
		}
	}
	var done sync.WaitGroup
	for i := 0; i < fanOut; i++ {
		done.Add(2)
		go func() { defer done.Done(); labkit.Monotonic() }()
		v.jobs <- &done
	}
	done.Wait()
	return nil
}

// request has a goroutine of its own, whose stack is short: the whole of it is recorded where it waits.
func (v *service) request() error {
	failed := make(chan error, 1)
	go func() { failed <- v.get() }()
	return <-failed
}

func (v *service) get() error {
	answer, err := v.client.Get(v.address)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	_, err = io.Copy(io.Discard, answer.Body)
	return err
}
