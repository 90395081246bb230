package main

// Schema is the version of the document; bpf/gotrace.py reads it.
const schema = 1

// Largest number of goroutines, running stretches and stop-the-world stretches in one document; the rest is counted.
const (
	maxGoroutines = 20000
	maxStretches  = 20000
	maxPauses     = 20000
	maxWaits      = 20000
)

// leastWait is how long a wait must last to be listed, in nanoseconds: counts have all of them.
const leastWait = 1_000_000

// maxText bounds every text out of a trace, in bytes.
const maxText = 400

// maxMarks bounds readings of the clock that are kept of one trace; labkit makes five.
const maxMarks = 1000

// Summary is the document.
type Summary struct {
	Schema   int              `json:"schema"`
	Traces   []*File          `json:"traces"`
	Segments map[int]*Segment `json:"segments"`
}

// File tells of one recording. Whole says that nothing is missing and all was read; Clock, what times were set by: "snapshot" is
// the trace's own reading of CLOCK_MONOTONIC, "mark" the reading in labkit's marks before the first segment, which is early by as much
// as lay between reading and marking.
type File struct {
	Name        string `json:"name"`
	Bytes       int64  `json:"bytes"`
	Format      string `json:"format"`
	Events      int64  `json:"events"`
	Whole       bool   `json:"whole"`
	Clock       string `json:"clock"`
	Segments    []int  `json:"segments"`
	Unsupported string `json:"unsupported"`
	Error       string `json:"error"`
}

// Segment is what happened between the marks of one segment, all recordings and entries together. Counts are by class of
// goroutine: see class.
type Segment struct {
	Entered           int                `json:"entered"`
	Left              int                `json:"left"`
	Whole             bool               `json:"whole"`
	Clock             string             `json:"clock"`
	StartNs           int64              `json:"start_ns"`
	EndNs             int64              `json:"end_ns"`
	Counts            map[string]*Counts `json:"counts"`
	Procs             Procs              `json:"procs"`
	Ranges            map[string]int64   `json:"ranges"`
	Pauses            []Pause            `json:"pauses"`
	PausesLeftOut     int                `json:"pauses_left_out"`
	Goroutines        []*Goroutine       `json:"goroutines"`
	GoroutinesLeftOut int                `json:"goroutines_left_out"`
	Stretches         []Stretch          `json:"stretches"`
	StretchesLeftOut  int                `json:"stretches_left_out"`
	Waits             []Wait             `json:"waits"`
	WaitsLeftOut      int                `json:"waits_left_out"`
}

// Counts are changes of state. Blocked is by the trace's own reason, and so is Stopped, which is giving up the processor without
// blocking ("preempted", "runtime.Gosched"). Running counts starts from the run queue, not returns from a system call.
type Counts struct {
	Created         int64            `json:"created"`
	Ended           int64            `json:"ended"`
	Blocked         map[string]int64 `json:"blocked"`
	Unblocked       int64            `json:"unblocked"`
	Running         int64            `json:"running"`
	Stopped         map[string]int64 `json:"stopped"`
	Syscalls        int64            `json:"syscalls"`
	SyscallsBlocked int64            `json:"syscalls_blocked"`
}

// Procs are changes of Ps: started, stopped, and taken away from a thread in a system call.
type Procs struct {
	Started int64 `json:"started"`
	Stopped int64 `json:"stopped"`
	Taken   int64 `json:"taken"`
}

// Pause is one stop of the world that began in the segment; DurationNs is -1 where its end is not in the trace.
type Pause struct {
	Kind       string `json:"kind"`
	StartNs    int64  `json:"start_ns"`
	DurationNs int64  `json:"duration_ns"`
}

// Goroutine is one that was created in the segment. EndedNs is 0 where its end is not in the trace; State and Reason are those
// at the last exit from the segment.
type Goroutine struct {
	ID        int64  `json:"id"`
	Parent    int64  `json:"parent"`
	Class     string `json:"class"`
	Start     string `json:"start"`
	Site      string `json:"site"`
	CreatedNs int64  `json:"created_ns"`
	EndedNs   int64  `json:"ended_ns"`
	State     string `json:"state"`
	Reason    string `json:"reason"`
}

// Stretch is goroutine, P, thread, start and end of one run of a goroutine, cut to the segment; a system call ends it.
type Stretch [5]int64

// Wait is one wait of a goroutine, from blocking to running again, both in one entry of the segment. WokenNs is when it became
// runnable.
type Wait struct {
	Goroutine int64  `json:"goroutine"`
	Reason    string `json:"reason"`
	StartNs   int64  `json:"start_ns"`
	WokenNs   int64  `json:"woken_ns"`
	EndNs     int64  `json:"end_ns"`
}

// bound trims lists so that all segments together stay within the limits, the longest lists first: a short segment among long
// ones keeps all that it has.
func (s *Summary) bound() {
	var goroutines, stretches, pauses, waits []int
	for _, each := range s.Segments {
		goroutines = append(goroutines, len(each.Goroutines))
		stretches = append(stretches, len(each.Stretches))
		pauses = append(pauses, len(each.Pauses))
		waits = append(waits, len(each.Waits))
	}
	g, r, p := share(goroutines, maxGoroutines), share(stretches, maxStretches), share(pauses, maxPauses)
	w := share(waits, maxWaits)
	for _, each := range s.Segments {
		each.Goroutines = trimmed(each.Goroutines, g, &each.GoroutinesLeftOut)
		each.Stretches = trimmed(each.Stretches, r, &each.StretchesLeftOut)
		each.Pauses = trimmed(each.Pauses, p, &each.PausesLeftOut)
		each.Waits = trimmed(each.Waits, w, &each.WaitsLeftOut)
	}
}

func trimmed[T any](list []T, most int, leftOut *int) []T {
	if len(list) <= most {
		return list
	}
	*leftOut += len(list) - most
	return list[:most]
}

// share returns the largest length that lists may keep each, so that they sum up to at most total.
func share(lengths []int, total int) int {
	low, high := 0, total
	for low < high {
		middle := (low + high + 1) / 2
		sum := 0
		for _, n := range lengths {
			sum += min(n, middle)
		}
		if sum <= total {
			low = middle
		} else {
			high = middle - 1
		}
	}
	return low
}
