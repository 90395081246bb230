// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"slices"
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
	calibrationBatches = 5
	// A batch is long enough for the clock and short enough that five of them, at three points, end within half a second.
	batchTime  = 15 * time.Millisecond
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

// calibrate measures the probes of a plan for this very binary. Each point is attached alone.
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
	defer programs.Close()
	result := &cost{}
	result.BareNs, result.Calls = timeCalls()
	for _, point := range []struct {
		name string
		ns   *float64
	}{{"pp", &result.PpNs}, {"entry", &result.EntryNs}, {"ret", &result.RetNs}} {
		if *point.ns, err = result.measure(self, point.name, p, programs); err != nil {
			return nil, err
		}
	}
	return result, nil
}

// measure attaches the probes of one point and gives what they add to a call.
func (c *cost) measure(self, point string, p *plan, programs *loaded) (float64, error) {
	var probes []probe
	for _, one := range p.Probes {
		if one.Point == point {
			probes = append(probes, one)
		}
	}
	if len(probes) == 0 {
		return 0, fail(kindCalibrate, "the calibration plan has no probe at the point %q", point)
	}
	attached, err := attachProbes(self, probes, programs)
	if err != nil {
		return 0, err
	}
	defer attached.Close()
	probed, calls := timeCalls()
	c.Calls += calls
	hits, err := programs.hits()
	if err != nil {
		return 0, fail(kindCalibrate, "%w", err)
	}
	// A preempted goroutine's stack may be checked again, so an entry probe can fire more often than calls were made.
	if got := hits[probes[0].ID]; got < uint64(calls) {
		return 0, fail(kindCalibrate, "the probe at %q was hit %d times in %d calls", point, got, calls)
	}
	return probed - c.BareNs, nil
}

// timeCalls gives the median over batches of the nanoseconds per call, and how many calls were made. The size of a batch
// is what the machine does in batchTime.
func timeCalls() (float64, int) {
	calls, size := 0, firstBatch
	for ; size < maxBatch; size *= 2 {
		calls += size
		if timeBatch(size) >= batchTime/2 {
			break
		}
	}
	perCall := make([]float64, calibrationBatches)
	for i := range perCall {
		perCall[i] = float64(timeBatch(size).Nanoseconds()) / float64(size)
		calls += size
	}
	slices.Sort(perCall)
	return perCall[len(perCall)/2], calls
}

// sink keeps the calls from being dropped.
var sink int

func timeBatch(size int) time.Duration {
	start := time.Now()
	for i := range size {
		sink += calibrationTarget(i)
	}
	return time.Since(start)
}
