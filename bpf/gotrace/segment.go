package main

import (
	"fmt"
	"strings"

	"golang.org/x/exp/trace"
)

// lastSegment is the highest id of a segment, that of the self-test.
const lastSegment = 511

const pausePrefix = "stop-the-world ("

// part is what one recording has of one segment, times still by the trace's clock.
type part struct {
	id            int
	entered, left int
	start, end    trace.Time
	counts        map[*goroutine]*Counts
	procs         Procs
	ranges        map[string]int64
	pauses        []pause
	created       []*goroutine
	states        map[*goroutine]*Goroutine
	stretches     []stretch
	stretchesOver int
	waits         []wait
	waitsOver     int
}

// wait is one wait of a goroutine, in the part that it began in.
type wait struct {
	part              *part
	entry             int // of the segment
	goroutine         int64
	reason            string
	start, woken, end trace.Time
}

type pause struct {
	kind       string
	start, end trace.Time
}

type stretch struct {
	goroutine, proc, thread int64
	start, end              trace.Time
}

// reader follows one trace.
type reader struct {
	v1         bool // a trace before Go 1.22: a P is announced by its first start or stop, not by a status
	goroutines map[int64]*goroutine
	parts      map[int]*part
	order      []int
	current    *part
	open       map[trace.ResourceID]openPause
	marks      []clockMark
	snapshots  int64
	shift      trace.Time // of this generation's snapshot: CLOCK_MONOTONIC minus the trace's clock
	events     int64
}

type openPause struct {
	part  *part
	index int
}

type clockMark struct {
	at   trace.Time
	mono int64
}

func newReader(v1 bool) *reader {
	return &reader{v1: v1, goroutines: map[int64]*goroutine{}, parts: map[int]*part{}, open: map[trace.ResourceID]openPause{}}
}

// event takes the next event of the trace.
func (r *reader) event(e trace.Event) error {
	r.events++
	switch e.Kind() {
	case trace.EventSync:
		if snapshot := e.Sync().ClockSnapshot; snapshot != nil {
			r.snapshots++
			r.shift = trace.Time(snapshot.Mono) - snapshot.Trace
		}
	case trace.EventLog:
		if log := e.Log(); log.Category == "segment" {
			r.goroutine(int64(e.Goroutine())).learn(e.Stack())
			return r.mark(e, log.Message)
		}
	case trace.EventRangeBegin:
		r.rangeBegins(e)
	case trace.EventRangeEnd:
		r.rangeEnds(e)
	case trace.EventStateTransition:
		switch transition := e.StateTransition(); transition.Resource.Kind {
		case trace.ResourceGoroutine:
			r.changes(e, transition)
		case trace.ResourceProc:
			r.proc(e, transition)
		}
	}
	return nil
}

// now returns the event's time: CLOCK_MONOTONIC where the trace has snapshots of it, else by the trace's own clock. Each generation
// has a snapshot of its own, because the factor between ticks and nanoseconds may be another.
func (r *reader) now(e trace.Event) trace.Time { return e.Time() + r.shift }

// mark begins or ends a segment, or sets the clock: labkit writes "clock CLOCK_MONOTONIC", "enter ID" and "leave ID".
func (r *reader) mark(e trace.Event, message string) error {
	var id int
	var mono int64
	if n, _ := fmt.Sscanf(message, "clock %d", &mono); n == 1 && len(r.marks) < maxMarks {
		r.marks = append(r.marks, clockMark{r.now(e), mono})
		return nil
	}
	if n, _ := fmt.Sscanf(message, "enter %d", &id); n == 1 && id >= 1 && id <= lastSegment {
		if r.current != nil {
			return fmt.Errorf("segment %d begins within segment %d", id, r.current.id)
		}
		r.enter(e, id)
		return nil
	}
	if n, _ := fmt.Sscanf(message, "leave %d", &id); n == 1 && r.current != nil && r.current.id == id {
		r.leave(e)
		return nil
	}
	return fmt.Errorf("a mark of a segment cannot be read: %q", bounded(message))
}

func (r *reader) enter(e trace.Event, id int) {
	p := r.parts[id]
	if p == nil {
		p = &part{
			id: id, start: r.now(e), counts: map[*goroutine]*Counts{}, ranges: map[string]int64{},
			states: map[*goroutine]*Goroutine{},
		}
		r.parts[id] = p
		r.order = append(r.order, id)
	}
	p.entered++
	r.current = p
	marker := r.goroutine(int64(e.Goroutine()))
	marker.state, marker.proc, marker.thread = trace.GoRunning, int64(e.Proc()), int64(e.Thread())
	for _, g := range r.goroutines {
		g.counts = p.counts[g]
		g.since = r.now(e)
	}
}

func (r *reader) leave(e trace.Event) {
	p := r.current
	for _, g := range r.goroutines {
		if g.state == trace.GoRunning {
			r.stops(g, r.now(e))
		}
		g.counts = nil
	}
	for _, g := range p.created {
		seen := p.states[g]
		seen.State, seen.Reason = stateNames[g.state], ""
		if g.state == trace.GoWaiting {
			seen.Reason = g.reason
		}
	}
	p.left++
	p.end = r.now(e)
	r.current = nil
}

func (r *reader) goroutine(id int64) *goroutine {
	g := r.goroutines[id]
	if g == nil {
		g = &goroutine{id: id, proc: -1, thread: -1}
		r.goroutines[id] = g
	}
	return g
}

// count returns the counts of g in the segment that is on.
func (r *reader) count(g *goroutine) *Counts {
	if g.counts == nil {
		g.counts = &Counts{}
		r.current.counts[g] = g.counts
	}
	return g.counts
}

// changes follows one goroutine. A status that the tracer repeats, at its start and with each generation, is no change.
func (r *reader) changes(e trace.Event, t trace.StateTransition) {
	from, to := t.Goroutine()
	id := int64(t.Resource.Goroutine())
	if from == trace.GoNotExist {
		delete(r.goroutines, id)
	}
	g := r.goroutine(id)
	switch {
	case from == trace.GoNotExist:
		r.created(e, t, g)
	case from != trace.GoUndetermined && from != to && r.current != nil:
		tally(r.count(g), from, to, t.Reason)
	}
	if from != trace.GoNotExist {
		g.learn(t.Stack)
	}
	if from == trace.GoRunning && to != trace.GoRunning && r.current != nil {
		if g.proc < 0 {
			g.proc, g.thread = int64(e.Proc()), int64(e.Thread())
		}
		r.stops(g, r.now(e))
	}
	if to == trace.GoRunning && from != to {
		g.proc, g.thread, g.since = -1, -1, r.now(e)
		if from != trace.GoUndetermined { // a status may be told by another thread
			g.proc, g.thread = int64(e.Proc()), int64(e.Thread())
		}
	}
	if to == trace.GoWaiting && from != to {
		g.reason = bounded(t.Reason)
	}
	if from != to && from != trace.GoUndetermined {
		r.waits(g, from, to, r.now(e))
	}
	if to == trace.GoNotExist {
		g.ended = r.now(e)
		delete(r.goroutines, id)
	}
	g.state = to
}

func (r *reader) created(e trace.Event, t trace.StateTransition, g *goroutine) {
	g.created = r.now(e)
	if e.Goroutine() != trace.NoGoroutine {
		g.parent = int64(e.Goroutine())
		r.goroutine(g.parent).learn(e.Stack())
	}
	for frame := range t.Stack.Frames() {
		g.start = bounded(frame.Func)
	}
	g.site = site(e.Stack())
	if r.current == nil {
		return
	}
	r.count(g).Created++
	r.current.created = append(r.current.created, g)
	r.current.states[g] = &Goroutine{ID: g.id, Parent: g.parent, Site: g.site}
}

// tally counts one change of state.
func tally(c *Counts, from, to trace.GoState, reason string) {
	switch {
	case to == trace.GoNotExist:
		c.Ended++
	case to == trace.GoWaiting:
		if c.Blocked == nil {
			c.Blocked = map[string]int64{}
		}
		c.Blocked[bounded(reason)]++
	case from == trace.GoWaiting:
		c.Unblocked++
	case from == trace.GoRunnable && to == trace.GoRunning:
		c.Running++
	case from == trace.GoRunning && to == trace.GoRunnable:
		if c.Stopped == nil {
			c.Stopped = map[string]int64{}
		}
		c.Stopped[bounded(reason)]++
	case to == trace.GoSyscall:
		c.Syscalls++
	case from == trace.GoSyscall && to == trace.GoRunnable:
		c.SyscallsBlocked++
	}
}

// waits follows the wait of g through a change of its state: it begins when g blocks, and ends when g runs again.
func (r *reader) waits(g *goroutine, from, to trace.GoState, now trace.Time) {
	switch {
	case to == trace.GoWaiting && r.current != nil:
		g.waiting = wait{part: r.current, entry: r.current.entered, goroutine: g.id, reason: g.reason, start: now}
		return
	case from == trace.GoWaiting:
		g.waiting.woken = now
	}
	if to != trace.GoRunning || g.waiting.part == nil {
		return
	}
	ended := g.waiting
	g.waiting.part = nil
	ended.end = now
	p := ended.part
	switch {
	case p != r.current || ended.entry != p.entered || ended.end-ended.start < leastWait:
	case len(p.waits) >= maxWaits:
		p.waitsOver++
	default:
		p.waits = append(p.waits, ended)
	}
}

// stops ends a stretch in which g ran.
func (r *reader) stops(g *goroutine, now trace.Time) {
	if len(r.current.stretches) >= maxStretches {
		r.current.stretchesOver++
		return
	}
	r.current.stretches = append(r.current.stretches, stretch{g.id, g.proc, g.thread, g.since, now})
}

func (r *reader) proc(e trace.Event, t trace.StateTransition) {
	if r.current == nil {
		return
	}
	from, to := t.Proc()
	announced := r.v1 && from == trace.ProcUndetermined
	switch {
	case to == trace.ProcRunning && (from == trace.ProcIdle || announced):
		r.current.procs.Started++
	case to == trace.ProcIdle && from != to && (from == trace.ProcRunning || announced):
		if t.Resource.Proc() == e.Proc() {
			r.current.procs.Stopped++
		} else {
			r.current.procs.Taken++
		}
	}
}

func (r *reader) rangeBegins(e trace.Event) {
	if r.current == nil {
		return
	}
	found := e.Range()
	kind, stops := strings.CutPrefix(found.Name, pausePrefix)
	if !stops {
		r.current.ranges[bounded(found.Name)]++
		return
	}
	r.open[found.Scope] = openPause{r.current, len(r.current.pauses)}
	r.current.pauses = append(r.current.pauses, pause{kind: bounded(strings.TrimSuffix(kind, ")")), start: r.now(e), end: -1})
}

func (r *reader) rangeEnds(e trace.Event) {
	if found := e.Range(); strings.HasPrefix(found.Name, pausePrefix) {
		if begun, known := r.open[found.Scope]; known {
			begun.part.pauses[begun.index].end = r.now(e)
			delete(r.open, found.Scope)
		}
	}
}
