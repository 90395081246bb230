// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math"
	"os"
	"runtime"
	"time"

	"github.com/cilium/ebpf"
)

// cost is what one hit of a probe takes, in nanoseconds, on this machine.
type cost struct {
	PpNs    float64 `json:"pp_ns"`
	EntryNs float64 `json:"entry_ns"`
	RetNs   float64 `json:"ret_ns"`
	BareNs  float64 `json:"bare_ns"` // the call itself, without a probe; taken off the others
	Calls   int     `json:"calls"`   // of all batches together
}

const (
	calibrationBatches = 9
	// Long enough for the clock; nine of them, four times, take a fifth of a second.
	batchTime  = 5 * time.Millisecond
	firstBatch = 16
	maxBatch   = 1 << 20
)

// calibrationTarget is what is probed. It calls something, so it has a frame, a stack check and with it a pp point.
//
//go:noinline
func calibrationTarget(n int) int {
	return calibrationLeaf(n) + 1
}

//go:noinline
func calibrationLeaf(n int) int { return n * 3 }

// calibrate measures the probes of a plan for this very binary.
func calibrate(object *ebpf.CollectionSpec, p *plan) (*cost, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fail(kindInternal, "find this program: %w", err)
	}
	if err := p.checkBinary(self); err != nil {
		return nil, err
	}
	programs, err := load(object, programs(p.Probes), settings{"target_tgid": uint32(os.Getpid())})
	if err != nil {
		return nil, err
	}
	c := &calibration{path: self, plan: p, programs: programs}
	// Detaching takes a grace period that nobody needs to wait for: nothing but this function runs what is probed.
	defer func() {
		go func() {
			c.attached.Close()
			programs.Close()
		}()
	}()
	before := c.timeCalls()
	result := &cost{BareNs: before}
	for _, point := range []struct {
		name string
		ns   *float64
	}{{"pp", &result.PpNs}, {"entry", &result.EntryNs}, {"ret", &result.RetNs}} {
		with, err := c.add(point.name)
		if err != nil {
			return nil, err
		}
		*point.ns = with - before
		before = with
	}
	result.Calls = c.calls
	return result, nil
}

// calibration is one under way. Points are added one after the other and stay: detaching takes a grace period.
type calibration struct {
	path     string
	plan     *plan
	programs *loaded
	attached links
	calls    int
}

// add attaches the probes of one point and gives the time of a call with all that is attached now.
func (c *calibration) add(point string) (float64, error) {
	var probes []probe
	for _, one := range c.plan.Probes {
		if one.Point == point {
			probes = append(probes, one)
		}
	}
	if len(probes) == 0 {
		return 0, fail(kindCalibrate, "the calibration plan has no probe at the point %q", point)
	}
	attached, err := attachProbes(c.path, probes, c.programs)
	if err != nil {
		return 0, err
	}
	c.attached = append(c.attached, attached...)
	before := c.calls
	perCall := c.timeCalls()
	hits, err := c.programs.hits()
	if err != nil {
		return 0, fail(kindCalibrate, "%w", err)
	}
	// An entry probe can fire more often than calls were made: the stack may have to grow.
	if got, calls := hits[probes[0].ID], c.calls-before; got < uint64(calls) {
		return 0, fail(kindCalibrate, "the probe at %q was hit %d times in %d calls", point, got, calls)
	}
	return perCall, nil
}

// timeCalls gives the nanoseconds of a call: the fastest of several batches, because whatever else runs on the machine can
// only make a batch slower. The size of a batch is what the machine does in batchTime.
func (c *calibration) timeCalls() float64 {
	size := firstBatch
	for ; size < maxBatch; size *= 2 {
		c.calls += size
		if timeBatch(size) >= batchTime/2 {
			break
		}
	}
	best := time.Duration(math.MaxInt64)
	for range calibrationBatches {
		best = min(best, timeBatch(size))
		c.calls += size
	}
	return float64(best.Nanoseconds()) / float64(size)
}

func timeBatch(size int) time.Duration {
	sum := 0
	start := time.Now()
	for i := range size {
		sum += calibrationTarget(i)
	}
	took := time.Since(start)
	runtime.KeepAlive(sum)
	return took
}
