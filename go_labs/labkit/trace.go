package labkit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/trace"
	"strconv"
	"time"
)

// OutFolder is the environment variable with the folder that files beside the document go to; the machine's side sets it.
const OutFolder = "KMLAB_OUT"

// MaxTrace bounds the file of one recording in bytes, which is some three million events; MaxTraces bounds all files of a run, which an
// emulated machine sends in half a minute.
const (
	MaxTrace  = 16 << 20
	MaxTraces = 32 << 20
)

const (
	traceCategory = "segment"
	clockMarks    = 5
	settlePause   = 2 * time.Millisecond
)

// recording is where runtime/trace writes to: a file that grows to limit bytes; the rest is counted.
type recording struct {
	file     *os.File // nil where there is no folder to write to
	limit    int64
	written  int64
	dropped  int64
	segments []*Segment
}

// Write takes what the tracer's own goroutine gives it. It never fails, because runtime/trace would not notice: what was not
// written is counted, and a file that lacks something is never given its final name.
func (w *recording) Write(data []byte) (int, error) {
	if w.dropped > 0 || w.written+int64(len(data)) > w.limit {
		w.dropped += int64(len(data))
		return len(data), nil
	}
	n, _ := w.file.Write(data)
	w.written += int64(n)
	w.dropped += int64(len(data) - n)
	return len(data), nil
}

// Trace runs body while runtime/trace records, into go-N.trace of the folder KMLAB_OUT, where N counts the recordings of the run.
// Every segment that body enters is marked in the trace, by a log entry of category "segment" beside the mark that the probes see, so
// that events can be cut to it. Starting and stopping happen outside the segments: the goroutines that the tracer itself needs
// are created before the first of them and end after the last.
//
// While it is written the file is called go-N-part.trace; it keeps that name where it is not whole. What a recording that reached
// MaxTrace (all together: MaxTraces) lost is in the count trace_bytes_dropped of its segments. Without KMLAB_OUT nothing is recorded, and the count
// trace_absent says how often a segment was entered so.
//
// It fails where something records already, or the file cannot be made.
func (r *Run) Trace(body func() error) error {
	return r.record(min(MaxTrace, MaxTraces-r.recorded), body)
}

// Traced runs body between Enter and Leave while runtime/trace records; see Run.Trace.
func (s *Segment) Traced(body func() error) error {
	return s.run.Trace(func() error {
		s.Enter()
		defer s.Leave()
		return body()
	})
}

func (r *Run) record(limit int64, body func() error) error {
	if r.recording != nil {
		return errors.New("runtime/trace records already; one recording holds several segments")
	}
	r.recording = &recording{limit: limit}
	defer func() { r.recording = nil }()
	folder := os.Getenv(OutFolder)
	if folder == "" {
		return body()
	}
	r.recordings++
	name := filepath.Join(folder, "go-"+strconv.Itoa(r.recordings))
	file, err := os.Create(name + "-part.trace")
	if err != nil {
		return fmt.Errorf("the trace cannot be written: %w", err)
	}
	r.recording.file = file
	err = r.recording.around(body)
	r.recorded += r.recording.written
	if closed := file.Close(); err == nil {
		err = closed
	}
	if err == nil && r.recording.dropped == 0 {
		err = os.Rename(name+"-part.trace", name+".trace")
	}
	return err
}

// around runs body while tracing is on, and notes in its segments what the recording lost.
func (w *recording) around(body func() error) error {
	if err := trace.Start(w); err != nil {
		return fmt.Errorf("runtime/trace does not start: %w", err)
	}
	settle()
	err := body()
	trace.Stop() // returns when the last byte was written
	for _, s := range w.segments {
		s.Counts["trace_bytes_dropped"] += w.dropped
	}
	return err
}

// settle lets the goroutines of the tracer come to rest, so that few of their first steps fall into the first segment, and marks
// CLOCK_MONOTONIC in the trace, which traces before Go 1.25 do not know: several times, of which the tightest mark counts.
func settle() {
	for i := 0; i < clockMarks; i++ {
		markTrace("clock " + strconv.FormatInt(Monotonic(), 10))
		time.Sleep(settlePause)
	}
}

// begins notes that the segment is entered during a recording, and returns the two messages that mark it in the trace, made
// now: nothing may be allocated once the segment has begun.
func (w *recording) begins(s *Segment) [2]string {
	if w == nil {
		return [2]string{}
	}
	if w.file == nil {
		s.Counts["trace_absent"]++
		return [2]string{}
	}
	if !w.has(s) {
		w.segments = append(w.segments, s)
	}
	id := strconv.Itoa(s.ID)
	return [2]string{"enter " + id, "leave " + id}
}

func (w *recording) has(s *Segment) bool {
	for _, each := range w.segments {
		if each == s {
			return true
		}
	}
	return false
}

// markTrace puts one mark into the trace; without a recording there is no message.
func markTrace(message string) {
	if message != "" {
		trace.Log(context.Background(), traceCategory, message)
	}
}
