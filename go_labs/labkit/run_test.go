package labkit

import (
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
)

func TestExecuteGivesOneDocumentWithTheSelfTest(t *testing.T) {
	o := NewOptions("forced")
	if err := o.Parse(nil); err != nil {
		t.Fatal(err)
	}

	text, err := Execute("example", o, func(r *Run) error {
		s, err := r.Segment("forced", map[string]string{"goroutines": "1"})
		if err != nil {
			return err
		}
		return s.Quiet(func() error { s.Sample("ns_per_op", 1.5); return nil })
	})

	if err != nil {
		t.Fatal(err)
	}
	var d document
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	seen := map[int64]bool{}
	for _, id := range d.SelfTest.GoIDs {
		seen[id] = true
	}
	if len(seen) != selfTestGoroutines || seen[-1] {
		t.Errorf("self-test ids = %v, want %d different ones", d.SelfTest.GoIDs, selfTestGoroutines)
	}
	if len(d.Segments) != 2 || d.Segments[0].ID != SelfTestSegment || d.Segments[1].ID != 1 {
		t.Fatalf("segments = %v", d.Segments)
	}
	if s := d.Segments[1]; s.StartNs <= d.Segments[0].StartNs || s.EndNs < s.StartNs {
		t.Errorf("segment runs from %d to %d, the self-test began at %d", s.StartNs, s.EndNs, d.Segments[0].StartNs)
	}
	if _, there := d.Metrics[metricWait]; !there || d.GoMaxProcs < 1 || !strings.HasPrefix(d.Go, "go1.") {
		t.Errorf("metrics %v, gomaxprocs %d, go %q", d.Metrics, d.GoMaxProcs, d.Go)
	}
}

func TestExecuteGivesNothingWhereTheBodyFails(t *testing.T) {
	o := NewOptions("forced")
	if err := o.Parse(nil); err != nil {
		t.Fatal(err)
	}

	text, err := Execute("example", o, func(*Run) error { return errors.New("no lock to be had") })

	if text != nil || err == nil {
		t.Errorf("Execute = %q, %v", text, err)
	}
}

func TestSegmentsEnd(t *testing.T) {
	r := &Run{Options: NewOptions("forced")}

	for i := 1; i <= LastSegment; i++ {
		if s, err := r.Segment("forced", nil); err != nil || s.ID != i {
			t.Fatalf("segment %d: id %v, %v", i, s, err)
		}
	}

	if _, err := r.Segment("forced", nil); err == nil || !strings.Contains(err.Error(), "510") {
		t.Errorf("segment 511 = %v, want an error that names 510", err)
	}
}

func TestSamplesAreBoundedAndTheRestIsCounted(t *testing.T) {
	s := newSegment(&Run{}, 1, "free", nil)

	for i := 0; i < MaxSamples+3; i++ {
		s.Sample("ns", float64(i))
	}

	if len(s.Samples["ns"]) != MaxSamples || s.Counts["samples_left_out"] != 3 {
		t.Errorf("%d samples, %d left out", len(s.Samples["ns"]), s.Counts["samples_left_out"])
	}
}

func TestMarksSayWhichSegmentIsCurrent(t *testing.T) {
	r := &Run{Options: NewOptions("forced")}
	r.wait[0].Name = metricWait
	s, err := r.Segment("free", nil)
	if err != nil {
		t.Fatal(err)
	}

	s.Enter()
	inside := current.Load()
	s.Leave()
	first := s.StartNs
	s.Enter()
	s.Leave()

	if inside != 1 || current.Load() != 0 {
		t.Errorf("current segment was %d inside, is %d outside", inside, current.Load())
	}
	if s.StartNs != first || s.EndNs <= first {
		t.Errorf("entered twice: from %d (first %d) to %d", s.StartNs, first, s.EndNs)
	}
}

func TestProfileCountsEachContentionOfSyncLocks(t *testing.T) {
	o := NewOptions("forced")
	if err := o.Parse([]string{"--phase=profiled"}); err != nil {
		t.Fatal(err)
	}
	var segment *Segment

	_, err := Execute("example", o, func(r *Run) error {
		s, err := r.Segment("forced", nil)
		if err != nil {
			return err
		}
		segment = s
		return s.Quiet(func() error { return waiters(3) })
	})

	if err != nil {
		t.Fatal(err)
	}
	if segment.Counts["profile_contentions"] != 3 || segment.Counts["profile_delay_ns"] <= 0 {
		t.Errorf("profile: %d contentions, %d ns; want 3", segment.Counts["profile_contentions"], segment.Counts["profile_delay_ns"])
	}
}

func waiters(n int) error {
	var mutex sync.Mutex
	done := make(chan struct{}, n)
	mutex.Lock()
	for i := 0; i < n; i++ {
		go func() { mutex.Lock(); defer mutex.Unlock(); done <- struct{}{} }()
	}
	err := AwaitParked(OnMutex, n)
	mutex.Unlock()
	for i := 0; err == nil && i < n; i++ {
		<-done
	}
	return err
}

func TestOnlyTheSectionsThatWereAskedForRunAndAnErrorEndsThem(t *testing.T) {
	o := NewOptions("a", "b", "c", "d")
	if err := o.Parse([]string{"--sections=d,a,c"}); err != nil {
		t.Fatal(err)
	}
	var ran []string
	section := func(name string, result error) Section {
		return Section{Name: name, Run: func(*Run) error { ran = append(ran, name); return result }}
	}
	stop := errors.New("no more")

	err := (&Run{Options: o}).Sections(section("a", nil), section("b", nil), section("c", stop), section("d", nil))

	if err != stop || strings.Join(ran, ",") != "a,c" {
		t.Errorf("ran %v, error %v", ran, err)
	}
}
