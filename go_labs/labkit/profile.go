package labkit

import (
	"bytes"
	"runtime"
	"runtime/metrics"
	"runtime/pprof"
	"sort"
	"strconv"
	"strings"
)

const (
	metricWait     = "/sync/mutex/wait/total:seconds"
	largestProfile = 512
)

// ProfileEntry is one stack of Go's mutex profile, frames innermost first.
type ProfileEntry struct {
	Count   int64    `json:"count"`
	DelayNs int64    `json:"delay_ns"`
	Frames  []string `json:"frames"`
}

var ticks float64

type contention struct {
	events int64
	delay  float64
	waited float64
	blocks map[string]int64
}

// readContention reads the runtime's own figures: its sampled waiting time, and in the profiled phase the mutex profile.
func (r *Run) readContention() contention {
	metrics.Read(r.wait[:])
	c := contention{waited: r.wait[0].Value.Float64(), blocks: r.readBlocks()}
	if r.Options.Phase != "profiled" {
		return c
	}
	for _, e := range mutexProfile() {
		c.events += e.Count
		c.delay += float64(e.DelayNs)
	}
	return c
}

// cyclesPerNanosecond is what the profile's cycles are divided by. runtime.MutexProfile does not give it; the text form of
// the profile starts with "--- mutex:\ncycles/second=N".
func cyclesPerNanosecond() float64 {
	if ticks > 0 {
		return ticks
	}
	var text bytes.Buffer
	if err := pprof.Lookup("mutex").WriteTo(&text, 1); err != nil {
		panic("mutex profile: " + err.Error())
	}
	_, rest, _ := strings.Cut(text.String(), "cycles/second=")
	line, _, _ := strings.Cut(rest, "\n")
	perSecond, err := strconv.ParseFloat(line, 64)
	if err != nil || perSecond <= 0 {
		panic("mutex profile: no cycles/second in its header")
	}
	ticks = perSecond / 1e9
	return ticks
}

func mutexProfile() []ProfileEntry {
	records := make([]runtime.BlockProfileRecord, 256)
	n, ok := runtime.MutexProfile(records)
	for !ok {
		records = make([]runtime.BlockProfileRecord, 2*n)
		n, ok = runtime.MutexProfile(records)
	}
	rate := cyclesPerNanosecond()
	entries := make([]ProfileEntry, 0, n)
	for _, record := range records[:n] {
		names := functions(record.Stack())
		if !ofSync(names) {
			continue
		}
		entries = append(entries, ProfileEntry{Count: record.Count, DelayNs: int64(float64(record.Cycles) / rate), Frames: names})
	}
	return entries
}

func functions(stack []uintptr) []string {
	var names []string
	frames := runtime.CallersFrames(stack)
	for {
		frame, more := frames.Next()
		if frame.Function != "" {
			names = append(names, frame.Function)
		}
		if !more {
			return names
		}
	}
}

// ofSync tells contention on sync's locks from that on the runtime's own, which is in the same profile from Go 1.22 on.
func ofSync(names []string) bool {
	for _, name := range names {
		if strings.HasPrefix(name, "sync.(*Mutex)") || strings.HasPrefix(name, "sync.(*RWMutex)") ||
			strings.HasPrefix(name, "internal/sync.(*Mutex)") {
			return true
		}
	}
	return false
}

// profile returns the entries with the most delay, at most 512.
func profile() []ProfileEntry {
	entries := mutexProfile()
	sort.SliceStable(entries, func(i, j int) bool { return entries[i].DelayNs > entries[j].DelayNs })
	if len(entries) > largestProfile {
		entries = entries[:largestProfile]
	}
	return entries
}

// runtimeMetrics reads what the runtime says about locks, collections and the scheduler at the end.
func runtimeMetrics() map[string]float64 {
	wanted := map[string]bool{
		metricWait: true, "/gc/cycles/total:gc-cycles": true, "/gc/cycles/forced:gc-cycles": true, "/gc/heap/allocs:bytes": true,
		"/gc/heap/allocs:objects": true, "/sched/goroutines:goroutines": true, "/sched/gomaxprocs:threads": true,
		"/sched/goroutines-created:goroutines": true, "/sched/threads/total:threads": true,
		"/cpu/classes/gc/total:cpu-seconds": true, "/cpu/classes/user:cpu-seconds": true, "/cpu/classes/total:cpu-seconds": true,
	}
	var samples []metrics.Sample
	for _, d := range metrics.All() {
		if wanted[d.Name] {
			samples = append(samples, metrics.Sample{Name: d.Name})
		}
	}
	metrics.Read(samples)
	values := map[string]float64{}
	for _, s := range samples {
		switch s.Value.Kind() {
		case metrics.KindUint64:
			values[s.Name] = float64(s.Value.Uint64())
		case metrics.KindFloat64:
			values[s.Name] = s.Value.Float64()
		}
	}
	return values
}
