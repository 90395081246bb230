package main

import (
	"fmt"
	"runtime"
	"strconv"
	"sync/atomic"

	"kmlab/labkit"
)

// counters are all that a forced segment is held against: what must not happen is held against zero.
var counters = []string{
	"chan_send", "chan_send_try", "chan_recv", "chan_recv_try", "select", "select_try", "handoff_send", "handoff_recv", "close",
	"chan_lock", "chan_lock_sleep", "chan_in_ax", "chan_in_di", "chan_entry_held", "chan_park_held", "chan_park_last", "resumed",
	sending, receiving, selecting, nilSending, nilReceiving, noCases,
}

// Counters of parks by the runtime's words.
const (
	sending      = "park:" + labkit.OnSend
	receiving    = "park:" + labkit.OnReceive
	selecting    = "park:" + labkit.OnSelect
	nilSending   = "park:" + labkit.OnNilSend
	nilReceiving = "park:" + labkit.OnNilReceive
	noCases      = "park:" + labkit.OnNoCases
)

// scene makes known numbers of channel operations happen. What it expects, for n goroutines:
//
//   - Each operation on a channel takes that channel's lock once (runtime/chan.go); a select with several cases takes the lock of
//     each of its channels, and again after it waited (runtime/select.go). An attempt that fails on a channel which is plainly
//     not ready takes none.
//   - Who waits is served by the other side directly: send and recv of runtime/chan.go, counted as hand-offs. It is already out of
//     the queue when it runs again, so nobody waits twice.
//   - On one P nobody else runs while a channel's lock is held, so that no lock2 can find one held. One at a time on all Ps, a
//     waiter starts only when the one before is seen parked; runtime.Stack stops the world, which no P does while it holds a
//     lock, so that the lock is free again by then.
type scene struct {
	name   string
	single bool // whether it runs one at a time on all Ps, too
	run    func(*crowd, int) error
	expect func(n int) map[string]int
}

// crowd starts goroutines of a scene and waits for them, on no channel and no lock.
type crowd struct {
	segment *labkit.Segment
	single  bool // start each only when the one before is seen parked
	started int
	done    atomic.Int64
}

// park starts n goroutines that each run body once, and returns when so many more than before are seen parked for reason.
func (c *crowd) park(n int, reason string, body func()) error {
	before := labkit.Parked()[reason]
	for i := 1; i <= n; i++ {
		c.started++
		go func() {
			body()
			c.done.Add(1)
		}()
		if c.single {
			if err := labkit.AwaitParked(reason, before+i); err != nil {
				return err
			}
		}
	}
	return labkit.AwaitParked(reason, before+n)
}

// wait returns when all of them are through.
func (c *crowd) wait() error {
	return labkit.AwaitCount(&c.done, c.started)
}

// watch names the channel of a scene, of which the probe is to find the address in registers.
func watch[T any](c *crowd, channel chan T) {
	c.segment.Addresses["channel"] = address(channel)
	labkit.Watch(address(channel))
}

// inTurnMost bounds how many arrive in turn: each look at n goroutines takes the runtime's own locks about a hundred times for each of
// them, so that looking after each arrival goes with the square.
const inTurnMost = 16

// forced plays each scene in each size. The last scene leaves its goroutines behind, where every later look would meet them.
func (o *options) forced(r *labkit.Run) error {
	all := runtime.GOMAXPROCS(1)
	defer runtime.GOMAXPROCS(all)
	for _, s := range scenes() {
		for _, n := range *o.sizes {
			if err := play(r, s, n, 1, false); err != nil {
				return err
			}
			if !s.single || n > inTurnMost {
				continue
			}
			runtime.GOMAXPROCS(all)
			if err := play(r, s, n, all, true); err != nil {
				return err
			}
			runtime.GOMAXPROCS(1)
		}
	}
	return nil
}

func play(r *labkit.Run, s scene, n, processors int, single bool) error {
	segment, err := r.Segment("forced", map[string]string{
		"scene": s.name, "goroutines": strconv.Itoa(n), "processors": strconv.Itoa(processors), "arrive": map[bool]string{false: "together", true: "in turn"}[single],
	})
	if err != nil {
		return err
	}
	expected := s.expect(n)
	for _, name := range counters {
		segment.Expected[name] = int64(expected[name])
	}
	segment.Counts["operations"] = int64(expected["chan_in_ax"])
	for name, count := range map[string]string{"waits_send": sending, "waits_receive": receiving, "waits_select": selecting} {
		segment.Counts[name] = int64(expected[count])
	}
	err = segment.Quiet(func() error {
		defer labkit.Watch(0)
		return s.run(&crowd{segment: segment, single: single}, n)
	})
	if err != nil {
		return fmt.Errorf("forced, %s of %d goroutines on %d Ps: %w", s.name, n, processors, err)
	}
	return nil
}
