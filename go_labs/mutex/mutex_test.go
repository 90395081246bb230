package main

import (
	"encoding/json"
	"fmt"
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
	text, err := labkit.Execute("mutex", o.Options, o.run)
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

// Go's mutex profile at fraction 1 counts each waiter that was let in: an oracle that knows nothing of what was planned.
func TestForcedWaitersAreWhatTheMutexProfileCounts(t *testing.T) {
	d := execute(t, "--phase=profiled", "--sections=forced", "--sizes=1,4,33")

	if len(d.Segments) != 9 {
		t.Fatalf("%d segments, want 3 sizes × 3 kinds", len(d.Segments))
	}
	for _, s := range d.Segments {
		var n int64
		if _, err := fmt.Sscan(s.Parameters["goroutines"], &n); err != nil {
			t.Fatal(err)
		}
		if s.Counts["acquired"] != n || s.Counts["profile_contentions"] != n {
			t.Errorf("%v: %d acquired, profile has %d, want %d", s.Parameters, s.Counts["acquired"], s.Counts["profile_contentions"], n)
		}
		e := s.Expected
		if e["park_mutex"]+e["park_rw_reader"]+e["park_rw_writer"] != n || e["sem"] != n || e["resumed"] != n {
			t.Errorf("%v: expected %v does not add up to %d waiters", s.Parameters, e, n)
		}
		if e["slow"] != e["park_mutex"] || e["sem_rw_reader"] != e["park_rw_reader"] || e["sem_rw_writer"] != e["park_rw_writer"] {
			t.Errorf("%v: expected %v: a way into waiting differs from the waits", s.Parameters, e)
		}
		if len(e) != 8 || s.Addresses[s.Parameters["lock"]] == 0 {
			t.Errorf("%v: %d expected counters, addresses %v", s.Parameters, len(e), s.Addresses)
		}
	}
}

func TestOrderOfAcquisitions(t *testing.T) {
	d := execute(t, "--sections=order", "--rounds=5")

	scenes := map[string]map[string]int64{}
	for _, s := range d.Segments {
		scenes[s.Parameters["lock"]+" "+s.Parameters["scene"]] = s.Counts
	}
	for scene, want := range map[string]map[string]int64{
		"rwmutex readers-after-writer":        {"rounds": 5, "readers": 20, "overtakes": 0, "overtakes_max": 0},
		"rwmutex readers-after-second-writer": {"rounds": 5, "readers": 20, "overtakes": 20, "overtakes_max": 4},
		"rwmutex overlap":                     {"goroutines": 4, "inside_max": 4},
		"mutex overlap":                       {"goroutines": 4, "inside_max": 1},
		"mutex overtaking":                    {"rounds": 5, "waiters": 5},
	} {
		for name, n := range want {
			if got, there := scenes[scene][name]; !there || got != n {
				t.Errorf("%s: %s = %d, want %d", scene, name, got, n)
			}
		}
	}
	// Whether the greedy goroutine wins the first race is the scheduler's choice; a second win would be starvation.
	if most := scenes["mutex overtaking"]["overtakes_max"]; most > 1 {
		t.Errorf("a waiter of a Mutex was overtaken %d times after 1 ms", most)
	}
}

func TestFreeContentionCountsWhatItDoes(t *testing.T) {
	d := execute(t, "--sections=free", "--readers=0,30,100", "--goroutines=1,3", "--lengths=5", "--rep=0.002", "--repetitions=3", "--seed=7")

	if len(d.Segments) != 12 {
		t.Fatalf("%d segments, want 3 shares × 2 numbers × 2 locks", len(d.Segments))
	}
	for _, s := range d.Segments {
		var sum float64
		for _, n := range s.Samples["acquired"] {
			sum += n
		}
		attempts := s.Counts["attempts"]
		if attempts == 0 || int64(sum) != attempts || s.Counts["repetitions"] != 3 || len(s.Samples["ns_per_op"]) != 3 {
			t.Errorf("%v: %d attempts, shares add up to %v, %v", s.Parameters, attempts, sum, s.Counts)
		}
		switch reads := s.Counts["reads"]; s.Parameters["readers"] {
		case "0":
			if reads != 0 {
				t.Errorf("%v: %d reads", s.Parameters, reads)
			}
		case "100":
			if reads != attempts {
				t.Errorf("%v: %d reads of %d", s.Parameters, reads, attempts)
			}
		default:
			if share := float64(reads) / float64(attempts); attempts > 10000 && (share < 0.27 || share > 0.33) {
				t.Errorf("%v: a share of %.3f were reads", s.Parameters, share)
			}
		}
	}
}

func TestOneAgainstOthers(t *testing.T) {
	d := execute(t, "--sections=starve", "--starve=0.02")

	if len(d.Segments) != 3 {
		t.Fatalf("%d scenes, want 3", len(d.Segments))
	}
	for _, s := range d.Segments {
		if s.Counts["acquired"] == 0 || s.Counts["attempts"] != s.Counts["acquired"]+s.Counts["others_acquired"] {
			t.Errorf("%v: %v", s.Parameters, s.Counts)
		}
		waits := int64(len(s.Samples["wait_ns"]))
		if waits+s.Counts["samples_left_out"] != s.Counts["acquired"] {
			t.Errorf("%v: %d waits and %d left out for %d acquisitions", s.Parameters, waits, s.Counts["samples_left_out"], s.Counts["acquired"])
		}
	}
}

func TestPairsDifferInTheCollector(t *testing.T) {
	d := execute(t, "--sections=gc", "--pairs=2", "--gc=0.05")

	sides := map[string]int{}
	for _, s := range d.Segments {
		sides[s.Parameters["pair"]+s.Parameters["collector"]]++
		if s.Parameters["collector"] == "off" && s.Counts["collections"] != 0 {
			t.Errorf("%v: %d collections with the collector off", s.Parameters, s.Counts["collections"])
		}
		if s.Counts["attempts"] == 0 || s.Counts["allocated_bytes"] < s.Counts["attempts"]*gcObject {
			t.Errorf("%v: %v", s.Parameters, s.Counts)
		}
	}
	if len(sides) != 4 {
		t.Errorf("halves %v, want both of each pair once", sides)
	}
}

func TestKernelSectionNamesItsLocks(t *testing.T) {
	d := execute(t, "--phase=kernel", "--sections=kernel", "--kernel=0.02")

	var forced int64
	for _, s := range d.Segments {
		if len(s.Addresses) != 1 || s.Addresses[s.Parameters["lock"]] == 0 {
			t.Errorf("%v: addresses %v", s.Parameters, s.Addresses)
		}
		forced += s.Counts["waiters"]
	}
	if forced != 3*kernelWaiters {
		t.Errorf("%d goroutines waited, want %d", forced, 3*kernelWaiters)
	}
}

func TestUncontendedCostsAreTakenInTurn(t *testing.T) {
	d := execute(t, "--sections=cost", "--costs=6")

	if len(d.Segments) != 3 {
		t.Fatalf("%d kinds, want 3", len(d.Segments))
	}
	for _, s := range d.Segments {
		if len(s.Samples["ns_per_op"]) != 6 || s.Counts["attempts"] < 6*costBatch {
			t.Errorf("%v: %d samples, %d attempts", s.Parameters, len(s.Samples["ns_per_op"]), s.Counts["attempts"])
		}
	}
}
