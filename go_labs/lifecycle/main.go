// Command lifecycle is the workload of the lab of section 3.3: goroutines are created, wait, panic and end. In known numbers
// (forced), under a mixed load while Go's own tracer and the article's dumps look (table), at a steady rate for as long as
// wanted (soak), and as fast as they go (churn).
package main

import (
	"time"

	"kmlab/labkit"
)

type options struct {
	*labkit.Options
	sizes       *[]int
	threshold   *time.Duration
	load        *time.Duration
	loadRate    *int
	dump        *time.Duration
	duration    *time.Duration
	rate        *int
	churn       *int
	repetitions *int
}

// declare lists the options with the ranges that lab.toml repeats; a test compares the two.
func declare() *options {
	o := labkit.NewOptions("forced", "table", "soak", "churn")
	return &options{
		Options:     o,
		sizes:       o.Ints("sizes", "100,1000,4000", 1, 10000),
		threshold:   o.Seconds("threshold", 0.1, 0.001, 60),
		load:        o.Seconds("load", 3, 0.1, 60),
		loadRate:    o.Int("load_rate", 400, 1, 20000),
		dump:        o.Seconds("dump", 0.5, 0.05, 60),
		duration:    o.Seconds("duration", 5, 1, 86400),
		rate:        o.Int("rate", 170, 1, 20000),
		churn:       o.Int("churn", 400, 1, 10000),
		repetitions: o.Int("repetitions", 12, 1, 1000),
	}
}

func main() {
	o := declare()
	labkit.Main("lifecycle", o.Options, o.run)
}

func (o *options) run(r *labkit.Run) error {
	return r.Sections(
		labkit.Section{Name: "forced", Run: o.forced},
		labkit.Section{Name: "table", Run: o.table},
		labkit.Section{Name: "churn", Run: o.churning},
		labkit.Section{Name: "soak", Run: o.soak},
	)
}
