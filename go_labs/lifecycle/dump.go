package main

import (
	"bytes"
	"fmt"
	"runtime"
	"strconv"
	"time"

	"kmlab/labkit"
)

const largestDump = 16 << 20

// dumper is the article's own method: the goroutine dump of /debug/pprof/goroutine?debug=2 at fixed intervals, which is
// runtime.Stack of all goroutines (net/http/pprof, runtime/pprof). The dump stops the world while it is made.
type dumper struct {
	segment *labkit.Segment
	every   time.Duration
	next    time.Time
	buffer  []byte
	dumps   int
}

func newDumper(s *labkit.Segment, every time.Duration) *dumper {
	return &dumper{segment: s, every: every, buffer: make([]byte, 1<<20)}
}

// look makes a dump where one is due, and keeps when, for how long, and which goroutines it shows.
func (d *dumper) look(now time.Time) {
	if now.Before(d.next) {
		return
	}
	d.next = now.Add(d.every)
	begin := labkit.Monotonic()
	n := runtime.Stack(d.buffer, true)
	end := labkit.Monotonic()
	for n == len(d.buffer) && len(d.buffer) < largestDump {
		d.buffer = make([]byte, 2*len(d.buffer))
		begin = labkit.Monotonic()
		n = runtime.Stack(d.buffer, true)
		end = labkit.Monotonic()
	}
	d.segment.Sample("dump_at_ns", float64(begin))
	d.segment.Sample("dump_ns", float64(end-begin))
	list := fmt.Sprintf("dump-%d", d.dumps)
	d.segment.Goroutines[list] = []int64{}
	for _, id := range identities(d.buffer[:n]) {
		d.segment.Goroutine(list, id)
	}
	d.dumps++
	d.segment.Counts["dumps"] = int64(d.dumps)
}

// identities reads the ids from the headers of a dump: "goroutine 18 [chan receive]:".
func identities(dump []byte) []int64 {
	var found []int64
	for _, line := range bytes.Split(dump, []byte("\n")) {
		rest, header := bytes.CutPrefix(line, []byte("goroutine "))
		if !header {
			continue
		}
		digits, _, _ := bytes.Cut(rest, []byte(" "))
		if id, err := strconv.ParseInt(string(digits), 10, 64); err == nil {
			found = append(found, id)
		}
	}
	return found
}
