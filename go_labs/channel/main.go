// Command channel is the workload of the lab of section 2.2: exact numbers of goroutines that wait on channels (forced), contention for
// a channel's lock with nobody waiting (contended), a pipeline of named channels (pipeline), and free use of one channel (free).
package main

import (
	"time"
	"unsafe"

	"kmlab/labkit"
)

type options struct {
	*labkit.Options
	sizes       *[]int
	arrivals    *int
	items       *int
	buffers     *[]int
	goroutines  *[]int
	rep         *time.Duration
	repetitions *int
}

// declare lists the options with the ranges that lab.toml repeats; a test compares the two.
func declare() *options {
	o := labkit.NewOptions("forced", "contended", "pipeline", "free")
	o.KeepBlockProfile()
	return &options{
		Options:     o,
		sizes:       o.Ints("sizes", "4,16,64", 1, 1024),
		arrivals:    o.Int("arrivals", 100, 1, 10000),
		items:       o.Int("items", 2000, 1, 100000),
		buffers:     o.Ints("buffers", "0,1,16,128", 0, 65536),
		goroutines:  o.Ints("goroutines", "1,4,16", 1, 256),
		rep:         o.Seconds("rep", 0.03, 0.001, 60),
		repetitions: o.Int("repetitions", 6, 1, 1000),
	}
}

func main() {
	o := declare()
	labkit.Main("channel", o.Options, o.run)
}

func (o *options) run(r *labkit.Run) error {
	return r.Sections(
		labkit.Section{Name: "forced", Run: o.forced},
		labkit.Section{Name: "contended", Run: o.contend},
		labkit.Section{Name: "pipeline", Run: o.pipeline},
		labkit.Section{Name: "free", Run: o.free},
	)
}

// address returns where a channel's hchan lies: a channel is a pointer to it.
func address[T any](c chan T) uint64 {
	return uint64(*(*uintptr)(unsafe.Pointer(&c)))
}
