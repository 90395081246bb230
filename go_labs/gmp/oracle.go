package main

import "kmlab/labkit"

// oracleSize is one size for all: what is asked here is whether Go's own tracer counts what the probes count.
const oracleSize = 16

// traced plays the forced scenes again while runtime/trace records them. What is known of them becomes a count: the tracer has goroutines of
// its own that park once a second, in the midst of a scene if it likes, so that no exact number can be promised to the probes.
func (o *options) traced(r *labkit.Run) error {
	for _, c := range forcedScenes() {
		run := c.run
		c.run = func(s *labkit.Segment, n int) error {
			err := run(s, n)
			for name, count := range s.Expected {
				s.Counts["known:"+name] = count
				delete(s.Expected, name)
			}
			return err
		}
		if err := c.playWith(r, "oracle", oracleSize, r.Trace); err != nil {
			return err
		}
	}
	return nil
}
