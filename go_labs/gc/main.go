// Command gc is the workload of the lab of section 4.1: allocations of known number and size at known places (forced), and the
// book renderer with its pool misused and used well, over offered load (load).
package main

import (
	"runtime/debug"
	"time"

	"kmlab/labkit"
)

type options struct {
	*labkit.Options
	sizes   *[]int
	rates   *[]int
	window  *time.Duration
	workers *int
	chapter *int
	missed  *int
	library *int
	gogc    *int
}

// declare lists the options with the ranges that lab.toml repeats; a test compares the two.
func declare() *options {
	o := labkit.NewOptions("forced", "load")
	return &options{
		Options: o,
		sizes:   o.Ints("sizes", "10,100,1000", 1, 4096),
		rates:   o.Ints("rates", "500,5000", 1, 20000),
		window:  o.Seconds("window", 1, 0.05, 3600),
		workers: o.Int("workers", 8, 1, 256),
		chapter: o.Int("chapter", 4096, 256, 1<<20),
		missed:  o.Int("missed", 100, 1, 100),
		library: o.Int("library", 4, 0, 256),
		gogc:    o.Int("gogc", 100, 10, 1000),
	}
}

func main() {
	o := declare()
	labkit.Main("gc", o.Options, o.run)
}

func (o *options) run(r *labkit.Run) error {
	r.ProfileHeap()
	labkit.Settle()
	debug.SetGCPercent(*o.gogc)
	return r.Sections(labkit.Section{Name: "forced", Run: o.forced}, labkit.Section{Name: "load", Run: o.load})
}
