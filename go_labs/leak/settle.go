package main

import (
	"bytes"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"time"

	"kmlab/labkit"
)

const (
	profilePrefix   = "alive:"
	collectorPrefix = "collector:"
	deepest         = 32 // frames of runtime.StackRecord
)

// settle waits until the last round is idle + a tenth ago, so that the rule of so many seconds without scheduling may speak, and asks then. The
// workload itself sleeps in slices, or that rule would name its main function.
func (o *options) settle(r *labkit.Run) error {
	s, err := r.Segment("settle", map[string]string{"idle": strconv.FormatFloat(o.idle.Seconds(), 'f', -1, 64)})
	if err != nil {
		return err
	}
	if o.settled == 0 {
		o.settled = labkit.Monotonic()
	}
	until := o.settled + int64(*o.idle+*o.idle/10)
	s.Enter()
	for labkit.Monotonic() < until {
		time.Sleep(o.period() / 2)
	}
	s.Leave()
	s.Counts["goroutines"] = int64(runtime.NumGoroutine())
	profileByFunction(s)
	s.Counts["planted"] = int64(len(o.leaks))
	return nil
}

// profileByFunction counts what the goroutine profile has, by the function that each began with: the outermost frame but runtime.goexit.
func profileByFunction(s *labkit.Segment) {
	records := make([]runtime.StackRecord, runtime.NumGoroutine()+64)
	n, ok := runtime.GoroutineProfile(records)
	for !ok {
		records = make([]runtime.StackRecord, 2*n)
		n, ok = runtime.GoroutineProfile(records)
	}
	for i := range records[:n] {
		stack := records[i].Stack()
		if len(stack) == deepest {
			s.Counts["profile_too_deep"]++
			continue
		}
		s.Counts[profilePrefix+outermost(stack)]++
	}
}

func outermost(stack []uintptr) string {
	last := ""
	frames := runtime.CallersFrames(stack)
	for {
		frame, more := frames.Next()
		if frame.Function != "" && frame.Function != "runtime.goexit" {
			last = frame.Function
		}
		if !more {
			return last
		}
	}
}

// collectorFinds asks Go's own leak profile: the collector looks for goroutines that wait for what nothing else can reach. It has it
// from Go 1.27 on, in 1.26 with GOEXPERIMENT=goroutineleakprofile. It comes last, since it changes the state of what it finds.
func (o *options) collectorFinds(r *labkit.Run) error {
	s, err := r.Segment("collector", nil)
	if err != nil {
		return err
	}
	found := pprof.Lookup("goroutineleak")
	if found == nil {
		s.Counts["absent"] = 1
		return nil
	}
	var text bytes.Buffer
	if err := found.WriteTo(&text, 1); err != nil {
		return err
	}
	for function, n := range leakedByFunction(text.String()) {
		s.Counts[collectorPrefix+function] = n
	}
	return nil
}

// leakedByFunction reads the text form of the profile: for each stack a line "N @ ADDRESS …" and one "#\tADDRESS\tFUNCTION+OFFSET\tFILE:LINE"
// for each frame, innermost first, runtime.goexit left out.
func leakedByFunction(text string) map[string]int64 {
	counts := map[string]int64{}
	for _, block := range strings.Split(text, "\n\n") {
		var n int64
		function := ""
		for _, line := range strings.Split(block, "\n") {
			fields := strings.Fields(line)
			switch {
			case len(fields) > 2 && fields[1] == "@":
				n, _ = strconv.ParseInt(fields[0], 10, 64)
			case len(fields) > 2 && fields[0] == "#":
				function = fields[2]
				if cut := strings.LastIndexByte(function, '+'); cut >= 0 {
					function = function[:cut]
				}
			}
		}
		if n > 0 && function != "" {
			counts[function] += n
		}
	}
	return counts
}
