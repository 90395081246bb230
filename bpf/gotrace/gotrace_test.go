package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"runtime"
	"runtime/trace"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// counting takes a trace and tells how often it was written to.
type counting struct {
	bytes.Buffer
	calls atomic.Int64
}

func (c *counting) Write(data []byte) (int, error) {
	defer c.calls.Add(1)
	return c.Buffer.Write(data)
}

// recorded runs body under runtime/trace of the Go that runs this test, and returns the summary of what was recorded.
func recorded(t *testing.T, body func()) *Summary {
	t.Helper()
	var data bytes.Buffer
	if err := trace.Start(&data); err != nil {
		t.Fatal(err)
	}
	body()
	trace.Stop()
	return summaryOf(t, data.Bytes())
}

func summaryOf(t *testing.T, data []byte) *Summary {
	t.Helper()
	path := filepath.Join(t.TempDir(), "go-1.trace")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	s := &Summary{Schema: schema, Segments: map[int]*Segment{}}
	s.add(path)
	return s
}

func mark(message string) { trace.Log(context.Background(), "segment", message) }

func TestCollectionsAndPausesAreCountedInTheirSegment(t *testing.T) {
	runtime.GC() // its workers are there
	s := recorded(t, func() {
		runtime.GC()
		mark("enter 4")
		runtime.GC()
		runtime.GC()
		mark("leave 4")
		runtime.GC()
	})

	segment := s.Segments[4]
	if segment == nil || !segment.Whole {
		t.Fatalf("traces %+v", s.Traces[0])
	}
	if n := segment.Ranges["GC concurrent mark phase"]; n != 2 {
		t.Errorf("%d collections, want 2", n)
	}
	kinds := map[string]int{}
	for _, pause := range segment.Pauses {
		kinds[pause.Kind]++
		if pause.DurationNs <= 0 || pause.StartNs < segment.StartNs {
			t.Errorf("pause %+v", pause)
		}
	}
	if kinds["GC sweep termination"] != 2 || kinds["GC mark termination"] != 2 {
		t.Errorf("pauses %v", kinds)
	}
}

func TestTheTracersOwnGoroutinesAreToldApart(t *testing.T) {
	var data counting
	if err := trace.Start(&data); err != nil {
		t.Fatal(err)
	}
	mark("enter 1")
	time.Sleep(time.Microsecond)
	for before := data.calls.Load(); data.calls.Load() == before; { // until the tracer's reader has run
		trace.Log(context.Background(), "note", "fills a buffer")
	}
	mark("leave 1")
	trace.Stop()
	s := summaryOf(t, data.Bytes())

	counts := s.Segments[1].Counts
	if counts[classTracer].Running == 0 || counts[classTracer].Syscalls != 0 {
		t.Errorf("tracer %+v", counts[classTracer])
	}
	for class, each := range counts {
		if each.Created != 0 || each.Ended != 0 {
			t.Errorf("%s: %+v", class, each)
		}
	}
	if each := counts[classUser]; each.Blocked["sleep"] != 1 || each.Unblocked != 1 {
		t.Errorf("user %+v", each)
	}
}

func TestAGoroutineThatOutlivesTheSegmentIsAliveAtItsEnd(t *testing.T) {
	ended := make(chan struct{})
	s := recorded(t, func() {
		release := make(chan struct{})
		mark("enter 1")
		go func() { <-release; close(ended) }()
		mark("leave 1")
		close(release)
		<-ended
	})

	segment := s.Segments[1]
	if len(segment.Goroutines) != 1 || segment.Counts[classUser].Created != 1 || segment.Counts[classUser].Ended != 0 {
		t.Fatalf("goroutines %v, counts %+v", segment.Goroutines, segment.Counts[classUser])
	}
	if g := segment.Goroutines[0]; g.State == "ended" || g.CreatedNs < segment.StartNs {
		t.Errorf("goroutine %+v", g)
	}
}

func TestWaitsOfAMillisecondAreListedFromBlockingToRunning(t *testing.T) {
	const nap = 5 * time.Millisecond
	s := recorded(t, func() {
		time.Sleep(nap) // outside
		mark("enter 1")
		time.Sleep(nap)
		received := make(chan struct{})
		go func() { time.Sleep(nap); close(received) }()
		<-received
		mark("leave 1")
		time.Sleep(nap)
	})

	segment := s.Segments[1]
	reasons := map[string]int{}
	for _, each := range segment.Waits {
		if each.EndNs-each.StartNs >= int64(nap)/2 {
			reasons[each.Reason]++
		}
		if !(segment.StartNs <= each.StartNs && each.StartNs <= each.WokenNs && each.WokenNs <= each.EndNs && each.EndNs <= segment.EndNs) {
			t.Errorf("wait %+v in %d to %d", each, segment.StartNs, segment.EndNs)
		}
	}
	if reasons["sleep"] != 2 || reasons["chan receive"] != 1 || segment.WaitsLeftOut != 0 {
		t.Errorf("waits %+v", segment.Waits)
	}
}

func TestAWaitThatTheSegmentDoesNotHoldIsNotListed(t *testing.T) {
	s := recorded(t, func() {
		gate, ended := make(chan struct{}), make(chan struct{})
		mark("enter 1")
		go func() { <-gate; close(ended) }()
		time.Sleep(5 * time.Millisecond)
		mark("leave 1")
		mark("enter 1")
		close(gate)
		<-ended
		mark("leave 1")
	})

	segment := s.Segments[1]
	if len(segment.Goroutines) != 1 || segment.Goroutines[0].State != "ended" {
		t.Fatalf("goroutines %+v", segment.Goroutines)
	}
	for _, each := range segment.Waits {
		if each.Goroutine == segment.Goroutines[0].ID {
			t.Errorf("wait %+v of the one that waited from one entry to the next", each)
		}
	}
}

func TestMarksThatCannotBeMakeARecordingThatIsNotWhole(t *testing.T) {
	for name, marks := range map[string][]string{
		"within segment 1": {"enter 1", "enter 2"},
		"cannot be read":   {"leave 3"},
		"\"enter 512\"":    {"enter 512"},
		"\"begin\"":        {"begin"},
		"ends within":      {"enter 1"},
	} {
		s := recorded(t, func() {
			for _, each := range marks {
				mark(each)
			}
		})
		if told := s.Traces[0]; told.Whole || !strings.Contains(told.Error, name) {
			t.Errorf("%v: %+v", marks, told)
		}
	}
}

func TestALogEntryOfAnotherCategoryIsNoMark(t *testing.T) {
	s := recorded(t, func() { trace.Log(context.Background(), "note", "enter 1") })

	if !s.Traces[0].Whole || len(s.Segments) != 0 {
		t.Errorf("%+v, segments %v", s.Traces[0], s.Segments)
	}
}

func TestClassesOfGoroutines(t *testing.T) {
	for start, class := range map[string]string{
		"main.main.func1": classUser, "runtime.main": classUser, "runtime.bgsweep": classRuntime,
		"runtime.(*traceAdvancerState).start.func1": classTracer, "runtime/trace.Start.func1": classTracer,
		"runtime.traceStartReadCPU.func1": classTracer, "": classUnknown, "runtimes.work": classUser,
	} {
		if got := (&goroutine{start: start}).class(); got != class {
			t.Errorf("class of %q = %s, want %s", start, got, class)
		}
	}
}

func TestListsAreTrimmedTheLongestFirst(t *testing.T) {
	for _, each := range []struct {
		lengths []int
		total   int
		want    int
	}{
		{[]int{5, 3}, 10, 10}, {[]int{100, 3}, 10, 7}, {[]int{8, 8, 8}, 10, 3}, {nil, 10, 10}, {[]int{4, 4}, 1, 0},
	} {
		if got := share(each.lengths, each.total); got != each.want {
			t.Errorf("share(%v, %d) = %d, want %d", each.lengths, each.total, got, each.want)
		}
	}
}

func TestWhatIsLeftOutIsCounted(t *testing.T) {
	s := &Summary{Segments: map[int]*Segment{
		1: {Goroutines: make([]*Goroutine, maxGoroutines), Stretches: make([]Stretch, 5)},
		2: {Goroutines: make([]*Goroutine, 10), Stretches: make([]Stretch, maxStretches), StretchesLeftOut: 7, Waits: make([]Wait, maxWaits+3)},
	}}

	s.bound()

	if one := s.Segments[1]; len(one.Goroutines) != maxGoroutines-10 || one.GoroutinesLeftOut != 10 || one.StretchesLeftOut != 0 {
		t.Errorf("segment 1: %d goroutines, %d left out", len(one.Goroutines), one.GoroutinesLeftOut)
	}
	if two := s.Segments[2]; len(two.Waits) != maxWaits || two.WaitsLeftOut != 3 {
		t.Errorf("segment 2: %d waits, %d left out", len(two.Waits), two.WaitsLeftOut)
	}
	if two := s.Segments[2]; len(two.Goroutines) != 10 || two.StretchesLeftOut != 12 || len(two.Stretches) != maxStretches-5 {
		t.Errorf("segment 2: %d stretches, %d left out", len(two.Stretches), two.StretchesLeftOut)
	}
}

func TestTextsAreBoundedAndValid(t *testing.T) {
	if got := bounded(strings.Repeat("a", 1000)); len(got) != maxText {
		t.Errorf("%d bytes", len(got))
	}
	if got := bounded("a\xffb"); got != "a?b" {
		t.Errorf("%q", got)
	}
}
