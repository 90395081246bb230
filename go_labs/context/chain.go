package main

import (
	"sync/atomic"
	"time"
)

// first, second and third are a chain of callers that a stack must show: none is inlined, and what follows each call keeps it from being a
// jump.

//go:noinline
func first(body func()) {
	second(body)
	passed.Add(1)
}

//go:noinline
func second(body func()) {
	third(body)
	passed.Add(1)
}

//go:noinline
func third(body func()) {
	body()
	passed.Add(1)
}

var passed atomic.Int64

// through calls body through the chain, on a goroutine of its own: its stack is short, so that a deep tree's fits into what is kept. It waits by
// sleeping: a channel would add waits for one to those that are counted.
func through(body func()) {
	var done atomic.Bool
	go func() {
		first(body)
		done.Store(true)
	}()
	for !done.Load() {
		time.Sleep(pause)
	}
}

// pause is how long the workload sleeps before it looks again.
const pause = 100 * time.Microsecond
