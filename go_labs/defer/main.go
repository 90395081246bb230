// Command defer is the workload of the lab of section 4.4: defers of every kind that the compiler makes, in exact numbers (forced), their
// cost beside one another (cost), and what they leave to the collector (alloc).
package main

import (
	"kmlab/labkit"
)

type options struct {
	*labkit.Options
	sizes  *[]int
	depth  *int
	slices *int
	calls  *int
	rounds *int
}

// declare lists the options with the ranges that lab.toml repeats; a test compares the two.
func declare() *options {
	o := labkit.NewOptions("forced", "cost", "alloc")
	return &options{
		Options: o,
		sizes:   o.Ints("sizes", "1,10,1000", 1, 100000),
		depth:   o.Int("depth", 10, 1, 1000),
		slices:  o.Int("slices", 120, 6, 2000),
		calls:   o.Int("calls", 200, 1, 100000),
		rounds:  o.Int("rounds", 12, 6, 500),
	}
}

func main() {
	o := declare()
	labkit.Main("defer", o.Options, o.run)
}

func (o *options) run(r *labkit.Run) error {
	return r.Sections(
		labkit.Section{Name: "forced", Run: o.forced},
		labkit.Section{Name: "cost", Run: o.cost},
		labkit.Section{Name: "alloc", Run: o.alloc},
	)
}
