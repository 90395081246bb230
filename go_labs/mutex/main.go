// Command mutex is the workload of the lab of section 2.4: sync.Mutex against sync.RWMutex, with exact numbers of waiters
// (forced, order), alone (cost), with free contention (free, starve), beside the garbage collector (gc), and for tools that look from
// the kernel's side (kernel).
package main

import (
	"time"

	"kmlab/labkit"
)

type options struct {
	*labkit.Options
	sizes       *[]int
	rounds      *int
	costRounds  *int
	readers     *[]int
	goroutines  *[]int
	lengths     *[]int
	rep         *time.Duration
	repetitions *int
	starve      *time.Duration
	pairs       *int
	gc          *time.Duration
	kernel      *time.Duration
}

// declare lists the options with the ranges that lab.toml repeats; a test compares the two.
func declare() *options {
	o := labkit.NewOptions("forced", "order", "cost", "free", "starve", "gc", "kernel")
	return &options{
		Options:     o,
		sizes:       o.Ints("sizes", "4,16,64", 1, 1024),
		rounds:      o.Int("rounds", 10, 1, 1000),
		costRounds:  o.Int("costs", 200, 6, 1000),
		readers:     o.Ints("readers", "0,50,70,90,100", 0, 100),
		goroutines:  o.Ints("goroutines", "1,4,16", 1, 256),
		lengths:     o.Ints("lengths", "20", 0, 100000),
		rep:         o.Seconds("rep", 0.03, 0.001, 60),
		repetitions: o.Int("repetitions", 6, 1, 1000),
		starve:      o.Seconds("starve", 0.4, 0.01, 600),
		pairs:       o.Int("pairs", 25, 1, 100),
		gc:          o.Seconds("gc", 0.1, 0.01, 2),
		kernel:      o.Seconds("kernel", 1, 0.01, 600),
	}
}

func main() {
	o := declare()
	labkit.Main("mutex", o.Options, o.run)
}

func (o *options) run(r *labkit.Run) error {
	return r.Sections(
		labkit.Section{Name: "forced", Run: o.forced},
		labkit.Section{Name: "order", Run: o.order},
		labkit.Section{Name: "cost", Run: o.costs},
		labkit.Section{Name: "free", Run: o.free},
		labkit.Section{Name: "starve", Run: o.starving},
		labkit.Section{Name: "gc", Run: o.collected},
		labkit.Section{Name: "kernel", Run: o.watched},
	)
}
