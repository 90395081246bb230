package static

import (
	"context"
	"time"
)

// Forgotten starts a loop with each call: a leak.
func Forgotten(poll func()) {
	go func() {
		for range time.NewTicker(time.Second).C {
			poll()
		}
	}()
}

// LostCancel is the control: go vet knows this one.
func LostCancel(parent context.Context, updates <-chan int) context.Context {
	ctx, cancel := context.WithCancel(parent)
	if len(updates) > 0 {
		cancel()
	}
	return ctx
}
