package main

import (
	"encoding/json"
	"testing"

	"kmlab/labkit"
)

// segments runs sections of the workload with short options and returns what it says of them.
func segments(t *testing.T, section string, arguments ...string) []labkit.Segment {
	t.Helper()
	o := declare()
	if err := o.Parse(append([]string{"--sections=" + section}, arguments...)); err != nil {
		t.Fatal(err)
	}
	text, err := labkit.Execute("defer", o.Options, o.run)
	if err != nil {
		t.Fatal(err)
	}
	var document struct {
		Segments []labkit.Segment `json:"segments"`
	}
	if err := json.Unmarshal(text, &document); err != nil {
		t.Fatal(err)
	}
	var found []labkit.Segment
	for _, s := range document.Segments {
		if s.Section == section {
			found = append(found, s)
		}
	}
	return found
}

func TestEachKindRunsWhatItDefers(t *testing.T) {
	for _, k := range kinds() {
		before := sink

		k.call(7)

		if ran := sink - before; k.name != "panic" && ran != k.defers(7) {
			t.Errorf("%s: %d deferred calls ran, want %d", k.name, ran, k.defers(7))
		}
	}
}

func TestForcedCountsGrowWithTheCalls(t *testing.T) {
	found := segments(t, "forced", "--sizes=1,3", "--depth=5")

	if len(found) != 2*len(kinds()) {
		t.Fatalf("%d segments", len(found))
	}
	for i, s := range found[:len(kinds())] {
		three := found[len(kinds())+i]
		for counter, n := range s.Expected {
			if three.Expected[counter] != 3*n {
				t.Errorf("%v: %s is %d for one call and %d for three", s.Parameters, counter, n, three.Expected[counter])
			}
		}
	}
}

// Records of defers in loops come from a pool: once it is filled, none is allocated, however many run.
func TestDefersInLoopsAllocateNothingOnceThePoolIsFilled(t *testing.T) {
	for _, s := range segments(t, "alloc", "--rounds=6", "--calls=50") {
		if s.Parameters["kind"] != "loop" || s.Parameters["collected"] != "false" {
			continue
		}
		sum := 0.0
		for _, objects := range s.Samples["objects_per_defer"] {
			sum += objects
		}
		if mean := sum / float64(len(s.Samples["objects_per_defer"])); mean > 0.05 {
			t.Errorf("%v objects for each defer", mean)
		}
		return
	}
	t.Fatal("no segment of loops")
}

func TestCostHasASampleOfEachSlice(t *testing.T) {
	for _, s := range segments(t, "cost", "--slices=6", "--calls=3") {
		if len(s.Samples["ns_per_call"]) != 6 || len(s.Samples["ns_per_defer"]) != 6 {
			t.Errorf("%v: %d and %d samples", s.Parameters, len(s.Samples["ns_per_call"]), len(s.Samples["ns_per_defer"]))
		}
	}
}
