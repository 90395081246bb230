package main

import (
	"context"
	"encoding/json"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"kmlab/labkit"
)

// segments runs a section of the workload with short options and returns what it says of it.
func segments(t *testing.T, section string, arguments ...string) []labkit.Segment {
	t.Helper()
	o := declare()
	if err := o.Parse(append([]string{"--sections=" + section}, arguments...)); err != nil {
		t.Fatal(err)
	}
	text, err := labkit.Execute("context", o.Options, o.run)
	if err != nil {
		t.Fatal(err)
	}
	var document struct {
		Segments []labkit.Segment `json:"segments"`
	}
	if err := json.Unmarshal(text, &document); err != nil {
		t.Fatal(err)
	}
	return document.Segments[1:] // after the self-test
}

// inside is the cancelCtx that a context is or embeds, as Go has it.
func inside(ctx context.Context) reflect.Value {
	value := reflect.ValueOf(ctx).Elem()
	if embedded := value.FieldByName("cancelCtx"); embedded.IsValid() {
		return embedded
	}
	return value
}

// Go's own map and channel, read by reflection, are the oracle for what the workload plans.
func TestPlannedChildrenAndChannelsAreThoseOfTheContexts(t *testing.T) {
	for _, sh := range []shape{{"tree", 3, 2}, {"chain", 5, 1}, {"star", 1, 9}, {"single", 0, 0}} {
		for _, mixed := range []bool{false, true} {
			nodes := grow(sh, mixed)
			if len(nodes) != sh.contexts() {
				t.Errorf("%v: %d contexts, want %d", sh, len(nodes), sh.contexts())
			}
			for _, n := range nodes {
				own := inside(n.ctx)
				if uint64(own.UnsafeAddr()) != address(n.ctx) {
					t.Errorf("%v, %s: lies at %#x, not at %#x", sh, n.path, own.UnsafeAddr(), address(n.ctx))
				}
				if found := own.FieldByName("children").Len(); found != n.children {
					t.Errorf("%v, %s: %d children, planned were %d", sh, n.path, found, n.children)
				}
				if there := !own.FieldByName("done").FieldByName("v").IsNil(); there != n.asked {
					t.Errorf("%v, %s: done channel there: %v, planned: %v", sh, n.path, there, n.asked)
				}
			}
			nodes[0].cancel()
		}
	}
}

// A context that nobody asked gets the shared channel; each that was asked closes its own.
func TestOnlyContextsThatWereAskedCloseAChannelOfTheirOwn(t *testing.T) {
	s := &labkit.Segment{Addresses: map[string]uint64{}, Counts: map[string]int64{}}
	tellClosed(s)
	nodes := grow(shape{"tree", 2, 3}, true)
	own := map[uint64]bool{}
	for _, n := range nodes {
		if n.asked {
			own[channel(n.ctx.Done())] = true
		}
	}

	nodes[0].cancel()

	for _, n := range nodes {
		<-n.ctx.Done()
		if at := channel(n.ctx.Done()); own[at] != n.asked || (at == s.Addresses["closedchan"]) == n.asked {
			t.Errorf("%s: asked %v, its channel is at %#x", n.path, n.asked, at)
		}
	}
	if len(own) != 4 {
		t.Errorf("%d channels, want those of the root and its children", len(own))
	}
}

func TestForcedSegmentsSayWhatTheyDo(t *testing.T) {
	found := segments(t, "forced", "--sizes=1,3", "--width=2")

	if len(found) != 2*6+5+3*6+5 {
		t.Fatalf("%d segments", len(found))
	}
	for _, s := range found {
		contexts, channels := 0, 0
		for name := range s.Addresses {
			if strings.HasPrefix(name, "context/") {
				contexts++
			}
			if strings.HasPrefix(name, "done/") {
				channels++
			}
		}
		more := map[string]int64{"repeated": again, "concurrent": cancellers - 1}[s.Parameters["scene"]]
		if s.Expected["cancel"] != int64(contexts)+more || s.Counts["contexts"] != int64(contexts) {
			t.Errorf("%v: %d contexts, %v", s.Parameters, contexts, s.Expected)
		}
		if s.Expected["close"] != int64(channels) || s.Counts["asked"] != int64(channels) {
			t.Errorf("%v: %d done channels, %v", s.Parameters, channels, s.Expected)
		}
		if waits := s.Expected["park:chan receive"]; (s.Parameters["done"] == waiting) != (waits > 0) || waits > int64(contexts) {
			t.Errorf("%v: %d waits", s.Parameters, waits)
		}
	}
}

func TestPrunedLeavesLeaveTheirParents(t *testing.T) {
	for _, s := range segments(t, "forced", "--sizes=3", "--width=2") {
		if s.Parameters["scene"] != "pruned" {
			continue
		}
		var children int64
		for name, n := range s.Counts {
			if strings.HasPrefix(name, "children/") {
				children += n
			}
		}
		if want := s.Counts["contexts"] - 1 - s.Counts["pruned"]; s.Counts["pruned"] != 4 || children != want {
			t.Errorf("%d pruned, %d children left, want 4 and %d", s.Counts["pruned"], children, want)
		}
		return
	}
	t.Fatal("no segment of pruned leaves")
}

func TestATreeThatIsTooLargeIsRefused(t *testing.T) {
	o := declare()
	if err := o.Parse([]string{"--sections=forced", "--sizes=8", "--width=8"}); err != nil {
		t.Fatal(err)
	}
	if _, err := labkit.Execute("context", o.Options, o.run); err == nil || !strings.Contains(err.Error(), "more than 2048") {
		t.Errorf("error %v", err)
	}
}

func TestTheChainOfCallersIsOnTheStack(t *testing.T) {
	var names []string
	through(func() {
		pcs := make([]uintptr, 32)
		frames := runtime.CallersFrames(pcs[:runtime.Callers(1, pcs)])
		for {
			frame, more := frames.Next()
			names = append(names, frame.Function[strings.LastIndex(frame.Function, ".")+1:])
			if !more {
				break
			}
		}
	})
	if !strings.Contains(strings.Join(names, " "), "third second first") {
		t.Errorf("stack %v", names)
	}
}

func TestDelaysHaveASampleForEachContext(t *testing.T) {
	for _, s := range segments(t, "delay", "--rounds=6", "--depth=3") {
		depth, _ := strconv.Atoi(s.Parameters["depth"])
		width, _ := strconv.Atoi(s.Parameters["width"])
		n := 6
		for d := 0; d <= depth; d++ {
			values := s.Samples["depth"+strconv.Itoa(d)+"_woken_ns"]
			if len(values) != n {
				t.Errorf("%v: %d samples at depth %d, want %d", s.Parameters, len(values), d, n)
			}
			for _, value := range values {
				if value <= 0 {
					t.Errorf("%v: a waiter ran %v ns after the cancellation", s.Parameters, value)
				}
			}
			n *= width
		}
		if len(s.Samples["returned_ns"]) != 6 || s.Counts["rounds"] != 6 {
			t.Errorf("%v: %v", s.Parameters, s.Counts)
		}
	}
}
