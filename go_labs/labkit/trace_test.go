package labkit

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// traced runs body as a workload does, with files going to a folder of its own, and returns that folder.
func traced(t *testing.T, body func(*Run) error) (string, *Run, error) {
	t.Helper()
	folder := t.TempDir()
	t.Setenv(OutFolder, folder)
	run := newRun(t)
	return folder, run, body(run)
}

func newRun(t *testing.T) *Run {
	t.Helper()
	run := &Run{Options: NewOptions("forced")}
	run.wait[0].Name = metricWait
	return run
}

func segment(t *testing.T, r *Run) *Segment {
	t.Helper()
	s, err := r.Segment("forced", nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func names(t *testing.T, folder string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(folder, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range found {
		found[i] = filepath.Base(found[i])
	}
	return strings.Join(found, " ")
}

func TestEachRecordingIsAFileWithTheMarksOfItsSegments(t *testing.T) {
	var first, second *Segment
	folder, _, err := traced(t, func(r *Run) error {
		first, second = segment(t, r), segment(t, r)
		nothing := func() error { return nil }
		if err := r.Trace(func() error { _ = first.Quiet(nothing); return second.Quiet(nothing) }); err != nil {
			return err
		}
		return second.Traced(nothing)
	})

	if err != nil || names(t, folder) != "go-1.trace go-2.trace" {
		t.Fatalf("files %q, error %v", names(t, folder), err)
	}
	for file, marks := range map[string][]string{
		"go-1.trace": {"clock ", "enter 1", "leave 1", "enter 2", "leave 2"}, "go-2.trace": {"clock ", "enter 2", "leave 2"},
	} {
		text, err := os.ReadFile(filepath.Join(folder, file))
		if err != nil || !bytes.HasPrefix(text, []byte("go 1.")) {
			t.Fatalf("%s: %v", file, err)
		}
		for _, mark := range marks {
			if !bytes.Contains(text, []byte(mark)) {
				t.Errorf("%s has no mark %q", file, mark)
			}
		}
	}
	for _, s := range []*Segment{first, second} {
		if dropped, told := s.Counts["trace_bytes_dropped"]; !told || dropped != 0 || s.Counts["trace_absent"] != 0 {
			t.Errorf("segment %d counts %v", s.ID, s.Counts)
		}
	}
}

func TestWhatIsBeyondTheBoundIsCountedAndTheFileIsNotCalledWhole(t *testing.T) {
	var s *Segment
	folder, run, err := traced(t, func(r *Run) error {
		s = segment(t, r)
		return r.record(1000, func() error { return s.Quiet(func() error { return waiters(50) }) })
	})

	if err != nil || names(t, folder) != "go-1-part.trace" {
		t.Fatalf("files %q, error %v", names(t, folder), err)
	}
	info, err := os.Stat(filepath.Join(folder, "go-1-part.trace"))
	if err != nil || info.Size() > 1000 || info.Size() != run.recorded {
		t.Errorf("size %v (%d noted), error %v", info.Size(), run.recorded, err)
	}
	if s.Counts["trace_bytes_dropped"] <= 0 {
		t.Errorf("counts %v", s.Counts)
	}
}

func TestWithoutAFolderNothingIsRecordedAndTheSegmentSaysSo(t *testing.T) {
	t.Setenv(OutFolder, "")
	run := newRun(t)
	s := segment(t, run)

	err := run.Trace(func() error { s.Enter(); s.Leave(); s.Enter(); s.Leave(); return nil })

	if _, told := s.Counts["trace_bytes_dropped"]; err != nil || told || s.Counts["trace_absent"] != 2 {
		t.Errorf("counts %v, error %v", s.Counts, err)
	}
}

func TestASegmentThatIsNotTracedIsSilentAboutIt(t *testing.T) {
	_, run, err := traced(t, func(r *Run) error {
		return r.Trace(func() error { return segment(t, r).Quiet(func() error { return nil }) })
	})
	s := segment(t, run)

	s.Enter()
	s.Leave()

	if err != nil || len(s.Counts) != 0 {
		t.Errorf("counts %v, error %v", s.Counts, err)
	}
}

func TestASecondRecordingWithinTheFirstIsRefused(t *testing.T) {
	_, _, err := traced(t, func(r *Run) error {
		return r.Trace(func() error { return r.Trace(func() error { return nil }) })
	})

	if err == nil || !strings.Contains(err.Error(), "records already") {
		t.Errorf("error = %v", err)
	}
}

func TestAFileThatCannotBeMadeIsAnError(t *testing.T) {
	t.Setenv(OutFolder, filepath.Join(t.TempDir(), "gone"))

	err := newRun(t).Trace(func() error { return nil })

	if err == nil || !strings.Contains(err.Error(), "cannot be written") {
		t.Errorf("error = %v", err)
	}
}
