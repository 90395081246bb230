package labkit

import (
	"fmt"
	"runtime/debug"
)

// MaxSamples bounds each list of samples, so that the document stays bounded whatever a person asks for.
const MaxSamples = 4096

// Segment is a stretch of the workload under fixed parameters. It may be entered several times (repetitions of one
// configuration among others): the probes count all of it under its id, StartNs is the first entry and EndNs the last exit.
type Segment struct {
	ID         int                  `json:"id"`
	Section    string               `json:"section"`
	Parameters map[string]string    `json:"parameters"`
	StartNs    int64                `json:"start_ns"`
	EndNs      int64                `json:"end_ns"`
	Counts     map[string]int64     `json:"counts"`
	Expected   map[string]int64     `json:"expected"`
	Samples    map[string][]float64 `json:"samples"`
	Addresses  map[string]uint64    `json:"addresses"`
	Goroutines map[string][]int64   `json:"goroutines"`
	Histograms map[string]bucketed  `json:"histograms"`

	run    *Run
	before contention
	marks  [2]string // of the recording that is on, if one is: at the beginning, at the end
}

// Segment adds a segment with the next free id; it fails when all 510 are taken.
func (r *Run) Segment(section string, parameters map[string]string) (*Segment, error) {
	id := len(r.segments) + 1
	if id > LastSegment {
		return nil, fmt.Errorf("the options ask for more than %d segments; sweep fewer values", LastSegment)
	}
	s := newSegment(r, id, section, parameters)
	r.segments = append(r.segments, s)
	return s, nil
}

func newSegment(r *Run, id int, section string, parameters map[string]string) *Segment {
	if parameters == nil {
		parameters = map[string]string{} // null is no object for who reads the document
	}
	return &Segment{
		ID: id, Section: section, Parameters: parameters, run: r,
		Counts: map[string]int64{}, Expected: map[string]int64{}, Samples: map[string][]float64{}, Addresses: map[string]uint64{},
		Goroutines: map[string][]int64{}, Histograms: map[string]bucketed{},
	}
}

// Enter begins the segment, or begins it again.
func (s *Segment) Enter() {
	s.run.heap.enter()
	s.before = s.run.readContention()
	s.marks = s.run.recording.begins(s)
	if s.StartNs == 0 {
		s.StartNs = Monotonic()
	}
	Mark(s.ID)
	markTrace(s.marks[0])
}

// Leave ends the segment for now. In the profiled phase it adds what Go's mutex profile counted in between, and in every
// phase what the runtime's own (sampled) waiting time grew by.
func (s *Segment) Leave() {
	markTrace(s.marks[1])
	Mark(0)
	s.EndNs = Monotonic()
	after := s.run.readContention()
	if s.run.Options.Phase == "profiled" {
		s.Counts["profile_contentions"] += after.events - s.before.events
		s.Counts["profile_delay_ns"] += int64(after.delay - s.before.delay)
	}
	for name, n := range after.blocks {
		s.Counts[name] += n - s.before.blocks[name]
	}
	s.Sample("runtime_wait_s", after.waited-s.before.waited)
	s.run.heap.leave(s.ID)
}

// Quiet runs body between Enter and Leave with the garbage collector off: a forced section has no use for it, and the next
// segment starts from a swept heap.
func (s *Segment) Quiet(body func() error) error {
	percent := debug.SetGCPercent(-1)
	defer debug.SetGCPercent(percent)
	s.Enter()
	defer s.Leave()
	return body()
}

// Goroutine adds an id to the list name, up to MaxSamples; how many were left out is counted. Not to be called concurrently.
func (s *Segment) Goroutine(name string, id int64) {
	if len(s.Goroutines[name]) >= MaxSamples {
		s.Counts["goroutines_left_out"]++
		return
	}
	s.Goroutines[name] = append(s.Goroutines[name], id)
}

// Sample appends one figure to the list name, up to MaxSamples; how many were left out is counted.
func (s *Segment) Sample(name string, value float64) {
	if len(s.Samples[name]) >= MaxSamples {
		s.Counts["samples_left_out"]++
		return
	}
	s.Samples[name] = append(s.Samples[name], value)
}
