package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/exp/trace"
)

// partial ends the name of a recording that is not whole: labkit renames it once it is.
const partial = "-part.trace"

// firstV2 is the minor version of Go whose traces are in the second format.
const firstV2 = 22

// add reads one recording and adds it to the summary.
func (s *Summary) add(path string) {
	file := &File{Name: filepath.Base(path), Segments: []int{}}
	s.Traces = append(s.Traces, file)
	r := file.read(path)
	if r == nil {
		return
	}
	file.Events = r.events
	if r.current != nil && file.Error == "" {
		file.Error = fmt.Sprintf("it ends within segment %d", r.current.id)
	}
	file.Whole = file.Error == "" && !strings.HasSuffix(path, partial)
	clock := r.clock()
	file.Clock = clock.name
	for _, id := range r.order {
		file.Segments = append(file.Segments, id)
		s.segment(id).join(r.parts[id], clock, file.Whole)
	}
	s.bound()
}

// read follows the trace as far as it can be read, and says why where that is not to its end. The parser checks what it reads, but
// a trace comes from a machine that a workload shared: should the parser fail otherwise, this trace alone is lost.
func (f *File) read(path string) (r *reader) {
	defer func() {
		if failed := recover(); failed != nil {
			f.Error = bounded(fmt.Sprintf("it cannot be read: %v", failed))
		}
	}()
	stream, err := os.Open(path)
	if err != nil {
		f.Error = bounded(err.Error())
		return nil
	}
	defer stream.Close()
	if info, err := stream.Stat(); err == nil {
		f.Bytes = info.Size()
	}
	buffered := bufio.NewReaderSize(stream, 1<<16)
	head, _ := buffered.Peek(len("go 1.21 trace"))
	minor := 0
	if n, _ := fmt.Sscanf(string(head), "go 1.%d trace", &minor); n == 1 {
		f.Format = fmt.Sprintf("1.%d", minor)
	}
	parser, err := trace.NewReader(buffered)
	if err != nil {
		if strings.Contains(err.Error(), "unsupported") {
			f.Unsupported = bounded(err.Error())
		}
		f.Error = bounded(err.Error())
		return nil
	}
	r = newReader(minor < firstV2)
	for {
		event, err := parser.ReadEvent()
		if errors.Is(err, io.EOF) {
			return r
		}
		if err == nil {
			err = r.event(event)
		}
		if err != nil {
			f.Error = bounded(err.Error())
			return r
		}
	}
}

// clock turns times of a trace into CLOCK_MONOTONIC.
type clock struct {
	name   string
	offset int64
}

// clock is set by the trace's own snapshot, else by the marks: of those the one with the least delay between reading the clock
// and marking.
func (r *reader) clock() clock {
	if r.snapshots > 0 {
		return clock{"snapshot", 0} // reader.now has done it
	}
	c := clock{}
	for i, mark := range r.marks {
		if offset := mark.mono - int64(mark.at); i == 0 || offset > c.offset {
			c = clock{"mark", offset}
		}
	}
	return c
}

func (c clock) at(t trace.Time) int64 { return int64(t) + c.offset }

func (s *Summary) segment(id int) *Segment {
	found := s.Segments[id]
	if found == nil {
		found = &Segment{
			Whole: true, Counts: map[string]*Counts{}, Ranges: map[string]int64{}, Pauses: []Pause{}, Goroutines: []*Goroutine{},
			Stretches: []Stretch{}, Waits: []Wait{},
		}
		for _, class := range []string{classUser, classRuntime, classTracer, classUnknown} {
			found.Counts[class] = &Counts{Blocked: map[string]int64{}, Stopped: map[string]int64{}}
		}
		s.Segments[id] = found
	}
	return found
}

// join adds what one recording has of the segment.
func (s *Segment) join(p *part, c clock, whole bool) {
	s.Whole = s.Whole && whole && p.entered == p.left
	if s.Entered == 0 || c.name == "mark" {
		s.Clock = c.name
	}
	if start := c.at(p.start); s.Entered == 0 || start < s.StartNs {
		s.StartNs = start
	}
	if p.left > 0 {
		s.EndNs = max(s.EndNs, c.at(p.end))
	}
	s.Entered += p.entered
	s.Left += p.left
	s.Procs.Started += p.procs.Started
	s.Procs.Stopped += p.procs.Stopped
	s.Procs.Taken += p.procs.Taken
	for name, n := range p.ranges {
		s.Ranges[name] += n
	}
	for g, counts := range p.counts {
		s.Counts[g.class()].add(counts)
	}
	for _, each := range p.pauses {
		duration := int64(-1)
		if each.end >= 0 {
			duration = int64(each.end - each.start)
		}
		s.Pauses = append(s.Pauses, Pause{each.kind, c.at(each.start), duration})
	}
	for _, g := range p.created {
		told := p.states[g]
		told.Class, told.Start, told.CreatedNs = g.class(), g.start, c.at(g.created)
		if g.ended != 0 {
			told.EndedNs = c.at(g.ended)
		}
		s.Goroutines = append(s.Goroutines, told)
	}
	s.WaitsLeftOut += p.waitsOver
	for _, each := range p.waits {
		s.Waits = append(s.Waits, Wait{each.goroutine, each.reason, c.at(each.start), c.at(each.woken), c.at(each.end)})
	}
	s.StretchesLeftOut += p.stretchesOver
	for _, each := range p.stretches {
		s.Stretches = append(s.Stretches, Stretch{each.goroutine, each.proc, each.thread, c.at(each.start), c.at(each.end)})
	}
}

func (c *Counts) add(other *Counts) {
	c.Created += other.Created
	c.Ended += other.Ended
	c.Unblocked += other.Unblocked
	c.Running += other.Running
	c.Syscalls += other.Syscalls
	c.SyscallsBlocked += other.SyscallsBlocked
	for reason, n := range other.Blocked {
		c.Blocked[reason] += n
	}
	for reason, n := range other.Stopped {
		c.Stopped[reason] += n
	}
}
