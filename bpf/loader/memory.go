// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	firstMemoryPause = time.Second
	// More samples than this are thinned to every second one, and the pause doubles: a run of any length keeps between half as
	// many and this many.
	maxMemorySamples = 512
	// The collector runs with each of the first samples: else what it needs for itself would come with the collections that are
	// forced each two minutes, and look like growth.
	warmUpSamples = 30
)

// memorySample is how much memory tracer and target held at a moment: their resident sets, KiB.
type memorySample struct {
	Seconds   float64 `json:"seconds"` // since the target was let go
	TracerKiB int64   `json:"tracer_kib"`
	TargetKiB int64   `json:"target_kib"`
}

// memoryWatch takes samples until it is finished. It allocates nearly all it needs before the first: what it watches is this process, too.
type memoryWatch struct {
	tracer, target string // file of each that residentKiB reads
	started        time.Time
	stop           chan struct{}
	group          sync.WaitGroup
	samples        []memorySample
	pause          time.Duration
	text           [2048]byte
}

// watchMemory begins to sample; while a process cannot be looked at, there are no samples.
func watchMemory(target int) *memoryWatch {
	w := &memoryWatch{
		started: time.Now(), stop: make(chan struct{}), pause: firstMemoryPause, samples: make([]memorySample, 0, maxMemorySamples+1),
	}
	w.tracer, w.target = rollup(os.Getpid()), rollup(target)
	w.group.Go(w.loop)
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
		if len(w.samples) < warmUpSamples {
			runtime.GC()
		}
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
	return append([]memorySample{}, w.samples...)
}

// rollup is the file that residentKiB reads.
func rollup(pid int) string {
	return fmt.Sprintf("/proc/%d/smaps_rollup", pid)
}

// residentKiB reads the resident set of a process from its page tables (smaps_rollup, proc(5)). The count in statm is quicker, and up to
// 6.1 late: each thread keeps up to 64 pages to itself (TASK_RSS_EVENTS_THRESH in mm/memory.c), which then come in at once. The file is
// opened each time, because it belongs to what the process runs, and the target becomes another program at its start.
func residentKiB(path string, text []byte) (int64, error) {
	file, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(file)
	n, err := unix.Read(file, text)
	if err != nil {
		return 0, err
	}
	return parseRollup(text[:n])
}

// parseRollup finds the line "Rss:    1234 kB".
func parseRollup(text []byte) (int64, error) {
	_, rest, _ := bytes.Cut(text, []byte("\nRss:"))
	digits, _, found := bytes.Cut(bytes.TrimLeft(rest, " "), []byte(" kB"))
	if !found || len(digits) == 0 {
		return 0, fmt.Errorf("smaps_rollup is %q", text)
	}
	var kib int64
	for _, digit := range digits {
		if digit < '0' || digit > '9' {
			return 0, fmt.Errorf("smaps_rollup is %q", text)
		}
		kib = 10*kib + int64(digit-'0')
	}
	return kib, nil
}
