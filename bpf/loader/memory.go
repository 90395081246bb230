// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"
)

const (
	firstMemoryPause = time.Second
	// More samples than this are thinned to every second one, and the pause doubles: a run of any length keeps between half as
	// many and this many.
	maxMemorySamples = 512
)

// memorySample is how much memory tracer and target held at a moment: their resident sets, KiB.
type memorySample struct {
	Seconds   float64 `json:"seconds"` // since the target was let go
	TracerKiB int64   `json:"tracer_kib"`
	TargetKiB int64   `json:"target_kib"`
}

// memoryWatch takes samples until it is finished.
type memoryWatch struct {
	target  int
	started time.Time
	stop    chan struct{}
	group   sync.WaitGroup
	samples []memorySample
	pause   time.Duration
}

func watchMemory(target int) *memoryWatch {
	w := &memoryWatch{target: target, started: time.Now(), stop: make(chan struct{}), pause: firstMemoryPause}
	w.group.Go(w.loop)
	return w
}

func (w *memoryWatch) loop() {
	for {
		w.sample()
		select {
		case <-time.After(w.pause):
		case <-w.stop:
			return
		}
	}
}

func (w *memoryWatch) sample() {
	tracer, err := residentKiB(os.Getpid())
	if err != nil {
		return
	}
	target, err := residentKiB(w.target)
	if err != nil {
		return // It has ended.
	}
	w.samples = append(w.samples, memorySample{Seconds: time.Since(w.started).Seconds(), TracerKiB: tracer, TargetKiB: target})
	if len(w.samples) > maxMemorySamples {
		w.samples = thin(w.samples)
		w.pause *= 2
	}
}

// thin keeps every second sample, the first among them.
func thin(samples []memorySample) []memorySample {
	kept := samples[:0]
	for i := 0; i < len(samples); i += 2 {
		kept = append(kept, samples[i])
	}
	return kept
}

// finish ends the watch and gives what it saw, at least an empty list.
func (w *memoryWatch) finish() []memorySample {
	close(w.stop)
	w.group.Wait()
	return append([]memorySample{}, w.samples...)
}

// residentKiB reads the resident set of a process: the second field of statm, in pages (proc(5)).
func residentKiB(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	fields := bytes.Fields(text)
	if len(fields) < 2 {
		return 0, fmt.Errorf("statm of process %d has %d fields", pid, len(fields))
	}
	pages, err := strconv.ParseInt(string(fields[1]), 10, 64)
	if err != nil {
		return 0, err
	}
	return pages * int64(os.Getpagesize()) / 1024, nil
}
