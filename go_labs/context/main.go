// Command context is the workload of the lab of section 2.5: trees of contexts of known depth and width, cancelled in exact numbers (forced),
// and how long a cancellation takes to reach whoever waits at each depth (delay).
package main

import (
	"kmlab/labkit"
)

type options struct {
	*labkit.Options
	sizes  *[]int
	width  *int
	depth  *int
	rounds *int
}

// declare lists the options with the ranges that lab.toml repeats; a test compares the two.
func declare() *options {
	o := labkit.NewOptions("forced", "delay")
	return &options{
		Options: o,
		sizes:   o.Ints("sizes", "1,3,5", 1, deepest),
		width:   o.Int("width", 2, 1, 8),
		depth:   o.Int("depth", 8, 1, deepest),
		rounds:  o.Int("rounds", 40, 6, 500),
	}
}

func main() {
	o := declare()
	labkit.Main("context", o.Options, o.run)
}

func (o *options) run(r *labkit.Run) error {
	return r.Sections(
		labkit.Section{Name: "forced", Run: o.forced},
		labkit.Section{Name: "delay", Run: o.delay},
	)
}
