// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"runtime"
	"sync/atomic"
	"time"
)

const (
	// ownTime is what the tracer gets beyond the target's time-out: calibrating, loading, attaching and collecting take one to two
	// seconds of an emulated machine, several times that on a busy host.
	ownTime = 20 * time.Second
	// largestDump bounds what is said of the tracer's own goroutines.
	largestDump = 64 << 10
)

// watchdog ends a tracer that is stuck in the kernel, and says where: whoever waits for it would see nothing but silence.
type watchdog struct {
	stage atomic.Pointer[string]
	timer *time.Timer
}

// startWatchdog begins to watch; after limit it writes the tracer's goroutines and a report to stderr, and exits. The kernel ends the target
// together with the tracer.
func startWatchdog(limit time.Duration, stderr io.Writer, exit func(int)) *watchdog {
	w := &watchdog{}
	w.enter("starting")
	w.timer = time.AfterFunc(limit, func() {
		dump := make([]byte, largestDump)
		stderr.Write(append(dump[:runtime.Stack(dump, true)], '\n'))
		exit(printFailure(stderr, fail(kindInternal, "the tracer was stuck for %s while %s", limit, *w.stage.Load())))
	})
	return w
}

// enter says what the tracer does now.
func (w *watchdog) enter(stage string) { w.stage.Store(&stage) }

// stop ends the watch.
func (w *watchdog) stop() { w.timer.Stop() }
