// Command leak is the workload of the lab of section 2.3: leaks of known kinds planted round by round beside a service whose goroutines
// may live long (forced, settle), bursts that come and go between two looks (peak), a defer that is left out (lives), and
// the same leaks for tools that look from the kernel's side (kernel).
package main

import (
	"runtime/debug"
	"time"

	"kmlab/labkit"
)

type options struct {
	*labkit.Options
	sizes    *[]int
	rounds   *int
	idle     *time.Duration
	bursts   *int
	height   *int
	interval *time.Duration
	kernel   *time.Duration

	leaks   []*planted
	service *service
	settled int64 // when the last round was over
}

// declare lists the options with the ranges that lab.toml repeats; a test compares the two.
func declare() *options {
	o := labkit.NewOptions("forced", "peak", "lives", "settle", "kernel")
	return &options{
		Options:  o,
		sizes:    o.Ints("sizes", "1,4,16", 1, 64),
		rounds:   o.Int("rounds", 3, 3, 20),
		idle:     o.Seconds("idle", 10, 0.2, 3600),
		bursts:   o.Int("bursts", 6, 1, 100),
		height:   o.Int("height", 100, 1, 5000),
		interval: o.Seconds("interval", 0.2, 0.01, 60),
		kernel:   o.Seconds("kernel", 1, 0.05, 600),
	}
}

func main() {
	o := declare()
	labkit.Main("leak", o.Options, o.run)
}

// run keeps the collector off: where it begins by itself, it creates goroutines of its own in a round and parks the one who
// allocated, on a stack deeper than what is recorded. Each round begins with a collection instead (plant).
func (o *options) run(r *labkit.Run) error {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	if o.Has("kernel") {
		return r.Trace(func() error { return o.watched(r) })
	}
	err := r.Trace(func() error {
		return r.Sections(
			labkit.Section{Name: "forced", Run: o.forced},
			labkit.Section{Name: "peak", Run: o.peaks},
			labkit.Section{Name: "lives", Run: o.lives},
			// It waits until the last round is long enough ago.
			labkit.Section{Name: "settle", Run: o.settle},
		)
	})
	if err == nil && o.Has("settle") {
		err = o.collectorFinds(r)
	}
	return err
}

// period is how often tickers and polling loops run: often enough to look alive to a rule of o.idle.
func (o *options) period() time.Duration {
	return max(*o.idle/10, 10*time.Millisecond)
}
