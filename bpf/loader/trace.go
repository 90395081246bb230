// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

const traceSchema = 2

// trace is trace.json.
type trace struct {
	Schema     int                          `json:"schema"`
	PID        int                          `json:"pid"`
	ExitStatus int                          `json:"exit_status"` // negative: the signal that ended the target
	Complete   bool                         `json:"complete"`    // the target ended by itself
	Ended      string                       `json:"ended"`       // why not: timeout, output_limit, interrupted; else empty
	LoadBias   uint64                       `json:"load_bias"`
	Threads    int                          `json:"threads"`
	Counters   map[string]map[string]uint64 `json:"counters"`
	Losses     map[string]uint64            `json:"losses"`
	// Runs of programs on kernel events that the kernel left out; of any process, so not known to be the target's.
	MissedKernelEvents uint64                  `json:"missed_kernel_events"`
	Unfinished         int                     `json:"unfinished"` // parks on a lock that nothing ended
	Hits               map[string]uint64       `json:"hits"`
	Programs           map[string]programStats `json:"programs"`
	Cost               *cost                   `json:"cost"`
	SelfTest           selfTest                `json:"self_test"`
	Stacks             [][]uint64              `json:"stacks"`
	Events             int                     `json:"events"`
	Sites              []site                  `json:"sites"`  // what allocated how much
	Memory             []memorySample          `json:"memory"` // of tracer and target, over time

	LoadSeconds      float64 `json:"load_seconds"`
	AttachSeconds    float64 `json:"attach_seconds"`
	CalibrateSeconds float64 `json:"calibrate_seconds"`
	TargetSeconds    float64 `json:"target_seconds"` // from letting the target go to its end
}

// kernelPrograms are those on kernel events.
var kernelPrograms = []string{"futex", "sched_switch", "syscall_enter"}

// countMissed adds up the runs that the kernel left out because another program held the CPU (known from 5.12). Those of
// uprobes are losses: nothing but the target runs the probed binary while it is traced.
func (t *trace) countMissed() {
	t.Losses["missed"] = 0
	for program, stats := range t.Programs {
		if slices.Contains(kernelPrograms, program) {
			t.MissedKernelEvents += stats.Missed
		} else {
			t.Losses["missed"] += stats.Missed
		}
	}
}

type selfTest struct {
	Goids []uint64 `json:"goids"`
}

// partial is a file under a temporary name in the folder where it will lie.
type partial struct {
	*os.File
	final string
}

func createPartial(folder, name string) (*partial, error) {
	file, err := os.OpenFile(filepath.Join(folder, "."+name+".part"), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", name, err)
	}
	return &partial{File: file, final: filepath.Join(folder, name)}, nil
}

// commit gives the file its name.
func (p *partial) commit() error {
	if err := p.Close(); err != nil {
		return fmt.Errorf("write %s: %w", p.final, err)
	}
	return os.Rename(p.Name(), p.final)
}

// discard removes the file, if it has not got its name.
func (p *partial) discard() {
	p.Close()
	os.Remove(p.Name())
}

func writeTrace(folder string, t *trace) error {
	file, err := createPartial(folder, "trace.json")
	if err != nil {
		return err
	}
	defer file.discard()
	if err := json.NewEncoder(file).Encode(t); err != nil {
		return fmt.Errorf("write trace.json: %w", err)
	}
	return file.commit()
}
