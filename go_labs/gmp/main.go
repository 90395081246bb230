// Command gmp is the workload of the lab of section 2.1: goroutines on Ps on Ms. Known numbers of parks, yields, starts and system
// calls (forced), what moves and who preempts (order), goroutine against thread switches (switch), mixed loads (free), the same
// scenes under Go's own tracer (oracle), and scenes for tools that look from the kernel's side (kernel).
package main

import (
	"time"

	"kmlab/labkit"
)

type options struct {
	*labkit.Options
	sizes  *[]int
	rounds *int
	pings  *int
	free   *time.Duration
	kernel *int
}

// declare lists the options with the ranges that lab.toml repeats; a test compares the two.
func declare() *options {
	o := labkit.NewOptions("forced", "order", "switch", "free", "oracle", "kernel")
	return &options{
		Options: o,
		sizes:   o.Ints("sizes", "4,16,64", 1, 256),
		rounds:  o.Int("rounds", 10, 1, 200),
		pings:   o.Int("pings", 10000, 10, 100000),
		free:    o.Seconds("free", 0.1, 0.01, 60),
		kernel:  o.Int("kernel", 128, 8, 256),
	}
}

func main() {
	o := declare()
	labkit.Main("gmp", o.Options, o.run)
}

func (o *options) run(r *labkit.Run) error {
	return r.Sections(
		labkit.Section{Name: "forced", Run: o.forced},
		labkit.Section{Name: "order", Run: o.order},
		labkit.Section{Name: "switch", Run: o.switches},
		labkit.Section{Name: "free", Run: o.mixed},
		labkit.Section{Name: "oracle", Run: o.traced},
		labkit.Section{Name: "kernel", Run: o.watched},
	)
}
