package main

import (
	"encoding/json"
	"runtime"
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
		Addresses  map[string]uint64
	}
}

func execute(t *testing.T, arguments ...string) output {
	t.Helper()
	o := declare()
	if err := o.Parse(arguments); err != nil {
		t.Fatal(err)
	}
	text, err := labkit.Execute("channel", o.Options, o.run)
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

// Go's block profile at rate 1 counts each wait on a channel that ended: an oracle that knows nothing of what was planned.
func TestForcedWaitsAreWhatTheBlockProfileCounts(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	// Package testing waits for this goroutine with a receive of its own.
	if err := labkit.AwaitParked(labkit.OnReceive, 1); err != nil {
		t.Fatal(err)
	}

	d := execute(t, "--phase=profiled", "--sections=forced", "--sizes=1,5,33")

	if len(d.Segments) != 3*10+2*4 {
		t.Fatalf("%d segments, want 10 scenes in 3 sizes, and 4 of them in turn in 2", len(d.Segments))
	}
	if now := runtime.GOMAXPROCS(0); now != before {
		t.Errorf("GOMAXPROCS is %d afterwards, was %d", now, before)
	}
	for _, s := range d.Segments {
		e, c := s.Expected, s.Counts
		if c["block_chan_send"] != e[sending] || c["block_chan_receive"] != e[receiving] || c["block_select"] != e[selecting] || c["block_other"] != 0 {
			t.Errorf("%v: profile %v, expected %v", s.Parameters, c, e)
		}
		if e["resumed"] != e[sending]+e[receiving]+e[selecting] {
			t.Errorf("%v: %d resumed of %v", s.Parameters, e["resumed"], e)
		}
		if e["handoff_send"]+e["handoff_recv"] != e["resumed"] && e["close"] == 0 {
			t.Errorf("%v: who waited was neither served directly nor woken by a close: %v", s.Parameters, e)
		}
		if len(e) != len(counters) {
			t.Errorf("%v: %d expected counters, want %d", s.Parameters, len(e), len(counters))
		}
		if nothing := s.Parameters["scene"] == "nil channel"; (s.Addresses["channel"] == 0) != nothing {
			t.Errorf("%v: addresses %v", s.Parameters, s.Addresses)
		}
	}
}

func TestContentionHasNobodyWaiting(t *testing.T) {
	d := execute(t, "--phase=profiled", "--sections=contended", "--arrivals=20")

	s := d.Segments[0]
	if s.Counts["block_chan_send"] != 0 || s.Counts["block_chan_receive"] != 0 {
		t.Errorf("waits on a channel that is never full or empty: %v", s.Counts)
	}
	if n := s.Counts["operations"]; n == 0 || s.Expected["chan_send"]+s.Expected["chan_recv"] != n || s.Expected["chan_lock"] != n {
		t.Errorf("%d operations, expected %v", n, s.Expected)
	}
}

func TestPipelineUsesEachChannelAsOftenAsItSays(t *testing.T) {
	d := execute(t, "--sections=pipeline", "--items=100")

	s := d.Segments[0]
	if e := s.Expected; e["chan_send"] != 200 || e["chan_recv"] != 100 || e["select"] != 104 || e["close"] != 1 {
		t.Errorf("expected %v", e)
	}
	if a := s.Addresses; len(a) != 3 || a["jobs"] == a["results"] || a["jobs"] == 0 || a["quit"] == 0 {
		t.Errorf("addresses %v", a)
	}
}

func TestFreeUseCountsItsValues(t *testing.T) {
	d := execute(t, "--sections=free", "--buffers=0,4", "--goroutines=1,3", "--rep=0.002", "--repetitions=3", "--seed=7")

	if len(d.Segments) != 4 {
		t.Fatalf("%d segments, want 2 buffers × 2 numbers", len(d.Segments))
	}
	for _, s := range d.Segments {
		n := s.Counts["values"]
		if n == 0 || s.Expected["chan_send"] != n || s.Expected["chan_recv"] != n || s.Expected["chan_lock"] != 2*n {
			t.Errorf("%v: %d values, expected %v", s.Parameters, n, s.Expected)
		}
		if s.Counts["repetitions"] != 3 || len(s.Samples["ns_per_value"]) != 3 {
			t.Errorf("%v: %v", s.Parameters, s.Counts)
		}
	}
}
