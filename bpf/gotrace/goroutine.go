package main

import (
	"strconv"
	"strings"

	"golang.org/x/exp/trace"
)

// Classes of goroutines. The tracer's own ones are created before a recording's first segment and run within it, so that
// what a segment's workload did is what is left without them. A goroutine that was there before the recording and of which no
// stack was recorded is unknown.
const (
	classUser    = "user"
	classRuntime = "runtime"
	classTracer  = "tracer"
	classUnknown = "unknown"
)

// traceDepth is the depth to which the runtime records stacks (traceStackSize in runtime/tracestack.go, 128 in all versions): the outermost
// frame of a deeper one is not where the goroutine starts.
const traceDepth = 128

var stateNames = map[trace.GoState]string{
	trace.GoUndetermined: "unknown", trace.GoNotExist: "ended", trace.GoRunnable: "runnable", trace.GoRunning: "running",
	trace.GoWaiting: "waiting", trace.GoSyscall: "syscall",
}

// goroutine is what is known of one while a trace is read.
type goroutine struct {
	id, parent   int64
	start, site  string
	state        trace.GoState
	reason       string
	created      trace.Time
	ended        trace.Time
	proc, thread int64
	since        trace.Time
	waiting      wait    // which has not ended; its part is nil where it does not count
	counts       *Counts // of the segment that is on
}

// class tells to whom a goroutine belongs, by the function that it starts with.
func (g *goroutine) class() string {
	switch {
	case g.start == "":
		return classUnknown
	case strings.HasPrefix(g.start, "runtime/trace."), strings.HasPrefix(g.start, "runtime.trace"),
		strings.HasPrefix(g.start, "runtime.(*trace"):
		return classTracer
	case strings.HasPrefix(g.start, "runtime.") && g.start != "runtime.main":
		return classRuntime
	}
	return classUser
}

// learn takes the start function from a whole stack of the goroutine, where it was not seen created.
func (g *goroutine) learn(stack trace.Stack) {
	if g.start != "" || stack == trace.NoStack {
		return
	}
	depth, last := 0, ""
	for frame := range stack.Frames() {
		depth++
		last = frame.Func
	}
	if depth < traceDepth {
		g.start = bounded(last)
	}
}

// site returns "function file:line" of the innermost frame that is not the runtime's own.
func site(stack trace.Stack) string {
	first := ""
	for frame := range stack.Frames() {
		text := bounded(frame.Func + " " + frame.File + ":" + strconv.FormatUint(frame.Line, 10))
		if !strings.HasPrefix(frame.Func, "runtime.") {
			return text
		}
		if first == "" {
			first = text
		}
	}
	return first
}

func bounded(text string) string {
	if len(text) > maxText {
		text = text[:maxText]
	}
	return strings.ToValidUTF8(text, "?")
}
