package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"runtime/pprof"
	"strconv"
	"strings"
	"testing"

	"kmlab/labkit"
)

// output is what the tests read of a document.
type output struct {
	Segments []segment
}

type segment struct {
	Section    string
	Parameters map[string]string
	Counts     map[string]int64
	Expected   map[string]int64
	Goroutines map[string][]int64
}

func execute(t *testing.T, arguments ...string) output {
	t.Helper()
	o := declare()
	if err := o.Parse(arguments); err != nil {
		t.Fatal(err)
	}
	text, err := labkit.Execute("leak", o.Options, o.run)
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

func (d output) section(name string) []segment {
	var found []segment
	for _, s := range d.Segments {
		if s.Section == name {
			found = append(found, s)
		}
	}
	return found
}

// functionOf is where each kind begins, as profiles name it.
var functionOf = map[string]string{
	"nil-receive": "main.nilReceive.func1", "nil-send": "main.nilSend.func1", "lost-receiver": "main.fetch.func1",
	"lost-sender": "main.lostSender.func1", "ticker": "main.tickerLoop.func1", "polling": "main.pollingLoop.func1",
	"no-cancel": "main.watch.func1", "waitgroup": "main.waitGroup.func1", "mutex": "main.lockedMutex.func1", "cond": "main.neverSignalled.func1",
}

// The goroutine profile knows nothing of what was planted. Under go test, functions of this package have its path in front.
func count(s segment, prefix, function string) int64 {
	var n int64
	for name, found := range s.Counts {
		if strings.HasPrefix(name, prefix) && strings.HasSuffix(name, strings.TrimPrefix(function, "main")) {
			n += found
		}
	}
	return n
}

const alone = "LEAK_TEST_ALONE"

// Leaks stay for as long as their process does, and the next self-test would find the waiters of a Mutex: the test has a
// process of its own.
func TestPlantedLeaksAreWhatGosOwnProfilesCount(t *testing.T) {
	if os.Getenv(alone) == "" {
		child := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		child.Env = append(os.Environ(), alone+"=1")
		if said, err := child.CombinedOutput(); err != nil || !strings.Contains(string(said), "--- PASS: "+t.Name()) {
			t.Fatalf("%v\n%s", err, said)
		}
		return
	}
	d := execute(t, "--sections=forced,settle", "--sizes=1,3", "--idle=0.2")

	forced, work, settle := d.section("forced"), d.section("work"), d.section("settle")
	if len(forced) != 6 || len(work) != 6 || len(settle) != 1 {
		t.Fatalf("%d, %d and %d segments, want 2 sizes × 3 rounds and one end", len(forced), len(work), len(settle))
	}
	planted := map[string]int64{}
	for i, s := range forced {
		size, _ := strconv.ParseInt(s.Parameters["size"], 10, 64)
		seen := map[int64]bool{}
		for kind, ids := range s.Goroutines {
			for _, id := range ids {
				seen[id] = true
			}
			if int64(len(ids)) != size {
				t.Errorf("round %d: %d of kind %s, want %d", i, len(ids), kind, size)
			}
			planted[kind] += int64(len(ids))
		}
		if want := int64(11) * size; int64(len(seen)) != want || s.Expected["created"] != want || s.Expected["ended"] != size {
			t.Errorf("round %d: %d ids, expected %v; want %d", i, len(seen), s.Expected, want)
		}
		for kind, function := range functionOf {
			if found := count(work[i], profilePrefix, function); found != planted[kind] {
				t.Errorf("round %d: the profile has %d of %s, planted were %d", i, found, kind, planted[kind])
			}
		}
	}
	for kind, function := range functionOf {
		if found := count(settle[0], profilePrefix, function); found != planted[kind] {
			t.Errorf("in the end the profile has %d of %s, planted were %d", found, kind, planted[kind])
		}
	}
	for function, want := range map[string]int64{".(*service).grow.func1": 6, ".(*service).renew.func1": 1, ".(*service).start.func1": 1} {
		if found := count(settle[0], profilePrefix, function); found != want {
			t.Errorf("%d goroutines of %s that may live, want %d", found, function, want)
		}
	}
	collector := d.section("collector")[0]
	if absent := pprof.Lookup("goroutineleak") == nil; absent != (collector.Counts["absent"] == 1) {
		t.Errorf("collector %v, but the profile's absence is %v", collector.Counts, absent)
	} else if !absent {
		for kind, function := range functionOf {
			want := planted[kind]
			if kind == "ticker" || kind == "polling" || kind == "no-cancel" {
				want = 0 // a timer, or a context that lives, leads to what it waits for
			}
			if found := count(collector, collectorPrefix, function); found != want {
				t.Errorf("the collector finds %d of %s, want %d", found, kind, want)
			}
		}
	}
}

func TestLooksSeeLongBurstsInFull(t *testing.T) {
	d := execute(t, "--sections=peak", "--bursts=2", "--height=20", "--interval=0.2")

	lengths := map[string]int{}
	for _, s := range d.section("peak") {
		lengths[s.Parameters["length"]]++
		if s.Expected["created"] != 20 || s.Expected["ended"] != 20 || s.Counts["seen"] > 20 {
			t.Errorf("%v: expected %v, counts %v", s.Parameters, s.Expected, s.Counts)
		}
		if s.Parameters["length"] == "long" && (s.Counts["looks"] == 0 || s.Counts["seen"] != 20) {
			t.Errorf("a long burst: %v", s.Counts)
		}
		if s.Counts["looks"] == 0 && s.Counts["seen"] != 0 {
			t.Errorf("seen without a look: %v", s.Counts)
		}
	}
	if lengths["short"] != 2 || lengths["long"] != 2 {
		t.Errorf("bursts %v", lengths)
	}
}

func TestWithoutTheDeferOneGoroutineLivesOn(t *testing.T) {
	d := execute(t, "--sections=lives", "--sizes=1,4")

	states := labkit.Goroutines()
	lives := d.section("lives")
	if len(lives) != 4 {
		t.Fatalf("%d segments, want 2 sizes × 2 variants", len(lives))
	}
	for _, s := range lives {
		without := s.Parameters["defer"] == "without"
		id := s.Goroutines["waiter"][0]
		if state, there := states[id]; there != without || (without && state != labkit.OnWaitGroup()) {
			t.Errorf("%v: the waiter is there: %v, %q", s.Parameters, there, state)
		}
		if alive := s.Expected["created"] - s.Expected["ended"]; (alive == 1) != without {
			t.Errorf("%v: expected %v", s.Parameters, s.Expected)
		}
	}
}

func TestLeakProfileIsReadByTheOutermostFunction(t *testing.T) {
	text := "goroutineleak profile: total 3\n" +
		"2 @ 0x1 0x2 0x3\n#\t0x1\tmain.nilReceive.func1+0x2f\t/src/kinds.go:69\n\n" +
		"1 @ 0x1 0x4\n#\t0x1\tsync.(*WaitGroup).Wait+0x1\t/src/waitgroup.go:1\n#\t0x4\tmain.waitGroup.func1+0x3\t/src/kinds.go:167\n"

	found := leakedByFunction(text)

	if len(found) != 2 || found["main.nilReceive.func1"] != 2 || found["main.waitGroup.func1"] != 1 {
		t.Errorf("leakedByFunction = %v", found)
	}
}
