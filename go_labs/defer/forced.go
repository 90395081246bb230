package main

import (
	"fmt"
	"strconv"

	"kmlab/labkit"
)

var counters = []string{"deferproc", "deferproc_stack", "defer_at", "defer_return", "defer_alloc", "panics"}

// forced calls each kind a known number of times.
func (o *options) forced(r *labkit.Run) error {
	if n := useBoth(); n != 2 {
		return fmt.Errorf("the two small functions counted to %d", n)
	}
	for _, n := range *o.sizes {
		for _, k := range kinds() {
			s, err := r.Segment("forced", map[string]string{
				"kind": k.name, "file": k.file, "calls": strconv.Itoa(n), "defers": strconv.Itoa(k.defers(*o.depth)),
			})
			if err != nil {
				return err
			}
			reached := k.expected(*o.depth)
			for _, counter := range counters {
				s.Expected[counter] = int64(n * reached[counter])
			}
			before := sink
			err = s.Quiet(func() error {
				for i := 0; i < n; i++ {
					k.call(*o.depth)
				}
				return nil
			})
			if err != nil {
				return err
			}
			s.Counts["executed"] = int64(n * k.defers(*o.depth))
			if ran := sink - before; k.name != "panic" && ran != n*k.defers(*o.depth) {
				return fmt.Errorf("%s: %d deferred calls ran, planned were %d", k.name, ran, n*k.defers(*o.depth))
			}
		}
	}
	return nil
}
