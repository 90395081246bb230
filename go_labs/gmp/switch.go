package main

import (
	"time"

	"kmlab/labkit"
)

// lockedShare: rounds between goroutines that are locked to their threads, as a share of the others: each costs two thread switches.
const lockedShare = 10

// switches: two goroutines hand a token to and fro, on one P and on two; and, as the control, each locked to a thread of its own, so
// that the kernel must switch for each of them.
func (o *options) switches(r *labkit.Run) error {
	for _, c := range []struct {
		scene
		rounds int
	}{
		{scene{"one P", 1, freely}, *o.pings},
		{scene{"two Ps", 2, freely}, max(*o.pings/lockedShare, 1)},
		{scene{"one P, locked to threads", 1, locked}, max(*o.pings/lockedShare, 1)},
	} {
		if err := c.play(r, "switch", c.rounds); err != nil {
			return err
		}
	}
	return nil
}

func freely(s *labkit.Segment, rounds int) error { return timedRally(s, rounds, false) }

func locked(s *labkit.Segment, rounds int) error { return timedRally(s, rounds, true) }

func timedRally(s *labkit.Segment, rounds int, locked bool) error {
	start := time.Now()
	if err := rally(s, rounds, locked); err != nil {
		return err
	}
	s.Sample("ns_per_round", float64(time.Since(start).Nanoseconds())/float64(rounds))
	return nil
}
