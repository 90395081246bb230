package main

import (
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"kmlab/labkit"
)

// output is what the tests read of a document.
type output struct {
	Segments []struct {
		Section    string
		Parameters map[string]string
		Counts     map[string]int64
		Expected   map[string]int64
		Samples    map[string][]float64
		Goroutines map[string][]int64
	}
}

func execute(t *testing.T, arguments ...string) output {
	t.Helper()
	t.Setenv(labkit.OutFolder, "")
	o := declare()
	if err := o.Parse(arguments); err != nil {
		t.Fatal(err)
	}
	text, err := labkit.Execute("lifecycle", o.Options, o.run)
	if err != nil {
		t.Fatal(err)
	}
	var d output
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	d.Segments = d.Segments[1:] // the self-test
	return d
}

// blocks returns how often a goroutine of this package's crowds waited to send, by Go's block profile at rate 1: an oracle that
// knows nothing of what was planned.
func blocks() int64 {
	records := make([]runtime.BlockProfileRecord, 10000)
	n, _ := runtime.BlockProfile(records)
	var sum int64
	for _, record := range records[:n] {
		frames := runtime.CallersFrames(record.Stack())
		var names []string
		for more := true; more; {
			var frame runtime.Frame
			frame, more = frames.Next()
			names = append(names, frame.Function)
		}
		if slices.Contains(names, "runtime.chansend1") && strings.Contains(strings.Join(names, " "), "lifecycle.") {
			sum += record.Count
		}
	}
	return sum
}

func TestForcedLivesAreWhatTheyPromise(t *testing.T) {
	runtime.SetBlockProfileRate(1)
	defer runtime.SetBlockProfileRate(0)
	before := blocks()

	d := execute(t, "--sections=forced", "--sizes=1,4,33", "--threshold=0.01")

	var sends int64
	for _, s := range d.Segments {
		var n int64
		if _, err := fmt.Sscan(s.Parameters["goroutines"], &n); err != nil {
			t.Fatal(err)
		}
		if s.Counts["started"] != n || s.Counts["finished"] != n || s.Counts["recovered"] != s.Expected["panics"] {
			t.Errorf("%v: %v, expected %v", s.Parameters, s.Counts, s.Expected)
		}
		if s.Expected["created"] != n || s.Expected["ended"] != n || len(s.Expected) != 4 {
			t.Errorf("%v: expected %v", s.Parameters, s.Expected)
		}
		sends += s.Expected["park:chan send"]
	}
	if len(d.Segments) != 3*len(lives) || sends != 2*(1+4+33) {
		t.Errorf("%d segments, %d waits", len(d.Segments), sends)
	}
	if waited := blocks() - before; waited != sends {
		t.Errorf("the block profile has %d waits to send, want %d", waited, sends)
	}
}

func TestTheRuntimeCreatesWhatTheLoadCounts(t *testing.T) {
	d := execute(t, "--sections=table,soak", "--load=0.3", "--load_rate=300", "--dump=0.05", "--duration=1", "--threshold=0.02")

	for _, s := range d.Segments {
		c := s.Counts
		if c["created"] <= longLived || c["ended"] != c["created"] || c["panics"] != c["planned_panics"] {
			t.Errorf("%s: %v", s.Section, c)
		}
		if made, known := c["metric_created"]; known && made != c["created"] {
			t.Errorf("%s: the runtime says %d goroutines, the load %d", s.Section, made, c["created"])
		}
	}
	table := d.Segments[0]
	if n := int(table.Counts["dumps"]); n < 2 || len(table.Samples["dump_at_ns"]) != n || len(table.Goroutines) != n {
		t.Errorf("%d dumps, %d times, %d lists", n, len(table.Samples["dump_at_ns"]), len(table.Goroutines))
	}
	for name, list := range table.Goroutines {
		if !slices.IsSorted(table.Samples["dump_at_ns"]) || len(list) == 0 {
			t.Errorf("%s has %d goroutines", name, len(list))
		}
	}
}

func TestChurnCountsEveryLife(t *testing.T) {
	d := execute(t, "--sections=churn", "--churn=20", "--repetitions=7")

	s := d.Segments[0]
	if s.Counts["lives"] != 140 || s.Expected["created"] != 140 || s.Expected["ended"] != 140 || len(s.Samples["ns_per_life"]) != 7 {
		t.Errorf("%v, expected %v", s.Counts, s.Expected)
	}
}

func TestIdentitiesOfADump(t *testing.T) {
	dump := "goroutine 1 [running]:\nmain.main()\n\t/x.go:1\n\ngoroutine 18 [chan receive, 2 minutes]:\nmain.f()\n\ngoroutine x [idle]:\n"

	if got := identities([]byte(dump)); !slices.Equal(got, []int64{1, 18}) {
		t.Errorf("identities = %v", got)
	}
}

func TestADumpListsTheGoroutineThatMakesIt(t *testing.T) {
	d := execute(t, "--sections=table", "--load=0.1", "--dump=0.05", "--threshold=0.01")

	if own := labkit.GoroutineID(); !slices.Contains(d.Segments[0].Goroutines["dump-0"], own) {
		t.Errorf("goroutine %d is not in %v", own, d.Segments[0].Goroutines["dump-0"])
	}
}
