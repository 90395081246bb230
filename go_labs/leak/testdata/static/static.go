// Package static is what static tools are shown: goroutines that live long and may, one that is forgotten, and a
// context whose cancel function is lost, which go vet knows (analyzer lostcancel). Nothing of it is run.
package static

import (
	"context"
	"net"
	"net/http"
	"time"
)

// Janitor has a ticker and no end, and is meant so.
func Janitor(sweep func()) {
	go func() {
		for range time.NewTicker(time.Minute).C {
			sweep()
		}
	}()
}

// JanitorWithStop has both.
func JanitorWithStop(ctx context.Context, sweep func()) {
	ticker := time.NewTicker(time.Minute)
	go func() {
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				sweep()
			case <-ctx.Done():
				return
			}
		}
	}()
}

// Heartbeat is an endless function that uses time.Tick, as its documentation allows.
func Heartbeat(beat func()) {
	for range time.Tick(time.Second) {
		beat()
	}
}

// Serve accepts connections for as long as the program runs.
func Serve(handler http.Handler) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := http.Server{Handler: handler, ReadHeaderTimeout: time.Second}
	go func() { _ = server.Serve(listener) }()
	return nil
}
