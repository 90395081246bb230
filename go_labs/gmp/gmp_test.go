package main

import (
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"kmlab/labkit"
)

type segment struct {
	Section    string
	Parameters map[string]string
	Counts     map[string]int64
	Expected   map[string]int64
	Samples    map[string][]float64
	Goroutines map[string][]int64
}

func execute(t *testing.T, body func(*labkit.Run) error, arguments ...string) []segment {
	t.Helper()
	o := declare()
	if err := o.Parse(arguments); err != nil {
		t.Fatal(err)
	}
	if body == nil {
		body = o.run
	}
	text, err := labkit.Execute("gmp", o.Options, body)
	if err != nil {
		t.Fatal(err)
	}
	var d struct{ Segments []segment }
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	return d.Segments[1:] // the self-test comes first
}

// blocked counts the events of Go's block profile by the function that blocked, which is the wait reason in other words.
func blocked() map[string]int64 {
	records := make([]runtime.BlockProfileRecord, 4096)
	n, ok := runtime.BlockProfile(records)
	if !ok {
		panic("the block profile has more than 4096 stacks")
	}
	counts := map[string]int64{}
	for _, record := range records[:n] {
		frames := runtime.CallersFrames(record.Stack())
		for more := true; more; {
			var frame runtime.Frame
			frame, more = frames.Next()
			if reason := reasonOf(frame.Function); reason != "" {
				counts[reason] += record.Count
				break
			}
		}
	}
	return counts
}

// reasonOf looks at the innermost functions first: a reader of an RWMutex is in RLock, a writer in (*RWMutex).Lock or, behind
// another, in (*Mutex).Lock.
func reasonOf(function string) string {
	switch {
	case strings.HasPrefix(function, "runtime.chanrecv"):
		return labkit.OnReceive
	case strings.HasPrefix(function, "runtime.chansend"):
		return labkit.OnSend
	case function == "runtime.selectgo":
		return labkit.OnSelect
	case strings.HasSuffix(function, "sync.(*Mutex).Lock"), strings.HasSuffix(function, "sync.(*Mutex).lockSlow"):
		return labkit.OnMutex
	case function == "sync.(*RWMutex).RLock":
		return labkit.OnRWMutexRead
	case function == "sync.(*RWMutex).Lock":
		return labkit.OnRWMutex
	case function == "sync.(*Cond).Wait":
		return onCond
	case function == "sync.(*WaitGroup).Wait":
		return waitGroupReason()
	}
	return ""
}

// Go's block profile at rate 1 counts each time that a goroutine blocked: an oracle that knows nothing of what was planned.
func TestForcedParksAreWhatTheBlockProfileCounts(t *testing.T) {
	runtime.SetBlockProfileRate(1)
	defer runtime.SetBlockProfileRate(0)
	known := map[string]bool{}
	for _, reason := range []string{
		labkit.OnReceive, labkit.OnSend, labkit.OnSelect, labkit.OnMutex, labkit.OnRWMutexRead, labkit.OnRWMutex, onCond, waitGroupReason(),
	} {
		known[reason] = true
	}
	for _, n := range []int{1, 4, 33} {
		for _, c := range forcedScenes() {
			var before, after map[string]int64
			segments := execute(t, func(r *labkit.Run) error {
				before = blocked()
				err := c.play(r, "forced", n)
				after = blocked()
				return err
			})
			for name, want := range segments[0].Expected {
				reason := strings.TrimPrefix(name, "park:")
				if reason == name || !known[reason] {
					continue
				}
				if got := after[reason] - before[reason]; got != want {
					t.Errorf("%s of %d: the block profile has %d × %s, expected are %d", c.name, n, got, reason, want)
				}
			}
		}
	}
}

func TestEachSizeHasEachScene(t *testing.T) {
	segments := execute(t, nil, "--phase=traced", "--sections=forced", "--sizes=1,5")

	if len(segments) != 2*len(forcedScenes()) {
		t.Fatalf("%d segments", len(segments))
	}
	for _, s := range segments {
		var n int64
		if _, err := fmt.Sscan(s.Parameters["size"], &n); err != nil {
			t.Fatal(err)
		}
		want := map[string]int64{"ping-pong": 1, "yields": 1}[s.Parameters["scene"]]
		if want == 0 {
			want = n
		}
		if s.Expected["created"] != want || s.Expected["ended"] != want {
			t.Errorf("%v: expected %v, want %d goroutines", s.Parameters, s.Expected, want)
		}
		if yields := s.Expected["yield"]; yields < s.Counts["yields"] {
			t.Errorf("%v: expects %d yields, made %d", s.Parameters, yields, s.Counts["yields"])
		}
	}
}

func TestWhoRanWhereAndAfterWhom(t *testing.T) {
	scenes := map[string]segment{}
	for _, s := range execute(t, nil, "--sections=order", "--rounds=4") {
		scenes[s.Parameters["scene"]] = s
	}

	if c := scenes["P moves"].Counts; c["moved"] != 4 || c["threads"] < 2 {
		t.Errorf("the only P was on %d threads, moved in %d of 4 rounds", c["threads"], c["moved"])
	}
	if s := scenes["preemption"]; s.Counts["returned"] != 4 || len(s.Goroutines["spinner"]) != 1 {
		t.Errorf("preemption: %v %v", s.Counts, s.Goroutines)
	}
	// A creator that is preempted lets its goroutines run early: rare, and not for every round.
	if c := scenes["local queue"].Counts; c["last_first"] == 0 || c["in_order"] == 0 {
		t.Errorf("local queue: %v", c)
	}
	if c := scenes["stealing"].Counts; c["elsewhere"] == 0 {
		t.Errorf("nothing was stolen: %v", c)
	}
	if s := scenes["global queue"]; s.Counts["yields"] != 4*tickRounds || s.Expected["yield"] != 4*tickRounds {
		t.Errorf("global queue: %v %v", s.Counts, s.Expected)
	}
}

func TestSwitchesAreCountedByTheKernelItself(t *testing.T) {
	segments := execute(t, nil, "--sections=switch", "--pings=400")

	for _, s := range segments {
		rounds := s.Counts["rounds"]
		if s.Expected["park:"+labkit.OnReceive] != 2*rounds || len(s.Samples["ns_per_round"]) != 1 {
			t.Errorf("%v: %v %v", s.Parameters, s.Expected, s.Samples)
		}
		// Locked to threads, each of two hand-overs of a round needs a switch.
		if s.Parameters["scene"] == "one P, locked to threads" && s.Counts["thread_switches"] < 2*rounds {
			t.Errorf("%d thread switches for %d rounds between locked threads", s.Counts["thread_switches"], rounds)
		}
	}
}

func TestEachLoadDoesSomething(t *testing.T) {
	segments := execute(t, nil, "--sections=free", "--free=0.05")

	for _, s := range segments {
		if s.Counts["operations"] == 0 || len(s.Expected) != 0 {
			t.Errorf("%v: %v, expected %v", s.Parameters, s.Counts, s.Expected)
		}
	}
	if len(segments) != 4 {
		t.Errorf("%d loads", len(segments))
	}
}

func TestThreadsOfTheControlsSlept(t *testing.T) {
	for _, s := range execute(t, nil, "--phase=kernel", "--sections=kernel", "--kernel=16") {
		if strings.HasPrefix(s.Parameters["scene"], "thread: ") && s.Counts["voluntary"] < s.Counts["parks"] {
			t.Errorf("%v: %v", s.Parameters, s.Counts)
		}
	}
}
