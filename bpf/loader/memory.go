// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
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

// memoryWatch takes samples until it is finished. It allocates all it needs before the first: what it watches is this process, too.
type memoryWatch struct {
	tracer, target *os.File // statm of each
	started        time.Time
	stop           chan struct{}
	group          sync.WaitGroup
	samples        []memorySample
	pause          time.Duration
	text           [128]byte
}

// watchMemory begins to sample; where a process cannot be looked at, there are no samples.
func watchMemory(target int) *memoryWatch {
	w := &memoryWatch{
		started: time.Now(), stop: make(chan struct{}), pause: firstMemoryPause, samples: make([]memorySample, 0, maxMemorySamples+1),
	}
	var failed [2]error
	w.tracer, failed[0] = openStatm(os.Getpid())
	w.target, failed[1] = openStatm(target)
	if errors.Join(failed[:]...) == nil {
		w.group.Go(w.loop)
	}
	return w
}

func (w *memoryWatch) loop() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-w.stop:
			return
		}
		w.sample()
		timer.Reset(w.pause)
	}
}

func (w *memoryWatch) sample() {
	tracer, err := residentKiB(w.tracer, w.text[:])
	if err != nil {
		return
	}
	target, err := residentKiB(w.target, w.text[:])
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
	w.tracer.Close()
	w.target.Close()
	return append([]memorySample{}, w.samples...)
}

func openStatm(pid int) (*os.File, error) {
	return os.Open(fmt.Sprintf("/proc/%d/statm", pid))
}

// residentKiB reads the resident set of a process: the second field of its statm, in pages (proc(5)).
func residentKiB(statm *os.File, text []byte) (int64, error) {
	n, err := statm.ReadAt(text, 0)
	if err != nil && err != io.EOF {
		return 0, err
	}
	_, rest, _ := bytes.Cut(text[:n], []byte(" "))
	digits, _, found := bytes.Cut(rest, []byte(" "))
	if !found {
		return 0, fmt.Errorf("statm is %q", text[:n])
	}
	var pages int64
	for _, digit := range digits {
		if digit < '0' || digit > '9' {
			return 0, fmt.Errorf("statm is %q", text[:n])
		}
		pages = 10*pages + int64(digit-'0')
	}
	return pages * int64(os.Getpagesize()) / 1024, nil
}
