package labkit

import (
	"runtime"
	"sort"
	"strconv"
	"strings"
)

// HeapEntry is one stack of Go's heap profile in one segment: what it allocated there, freed or not, frames innermost
// first. Bytes are those of the size classes, as the profile counts them, and not what was asked for.
type HeapEntry struct {
	Segment int      `json:"segment"`
	Count   int64    `json:"count"`
	Bytes   int64    `json:"bytes"`
	Frames  []string `json:"frames"`
}

// largestHeap bounds the entries of all segments together.
const largestHeap = 4096

type allocated struct{ count, bytes int64 }

// heapRecorder takes the heap profile apart by segment.
type heapRecorder struct {
	before map[string]allocated
	frames map[string][]string
	names  map[[32]uintptr]string // of runtime.MemProfileRecord.Stack0: naming a stack costs more than all the rest
	found  map[int]map[string]allocated
}

// ProfileHeap makes Go's heap profile count every allocation from now on, and gives each segment that is entered its own part
// of it. Two things are not in that profile, by its own rules: a tiny object that fits into a block which is there already
// (mallocgc returns before it samples), and which of the bytes of a size class were asked for. Outside the profiled
// phase it does nothing.
func (r *Run) ProfileHeap() {
	if r.Options.Phase != "profiled" || r.heap != nil {
		return
	}
	runtime.MemProfileRate = 1
	r.heap = &heapRecorder{
		frames: map[string][]string{}, names: map[[32]uintptr]string{}, found: map[int]map[string]allocated{},
	}
}

func (h *heapRecorder) enter() {
	if h != nil {
		h.before = h.snapshot()
	}
}

func (h *heapRecorder) leave(segment int) {
	if h == nil {
		return
	}
	if h.found[segment] == nil {
		h.found[segment] = map[string]allocated{}
	}
	for key, now := range h.snapshot() {
		was, known := h.before[key], h.found[segment][key]
		if now.count > was.count && !bookkeeping(key) {
			h.found[segment][key] = allocated{known.count + now.count - was.count, known.bytes + now.bytes - was.bytes}
		}
	}
}

// bookkeeping tells what labkit allocates itself, around the segment.
func bookkeeping(key string) bool {
	return strings.Contains(key, "kmlab/labkit.(*Segment).Enter") || strings.Contains(key, "kmlab/labkit.(*Segment).Leave")
}

// snapshot reads the profile up to now. What was allocated since the last mark termination is not in it before two more
// collections have ended (mProf_NextCycle and mProf_Flush, runtime/mprof.go).
func (h *heapRecorder) snapshot() map[string]allocated {
	runtime.GC()
	runtime.GC()
	records := make([]runtime.MemProfileRecord, 1024)
	n, whole := runtime.MemProfile(records, true)
	for !whole {
		records = make([]runtime.MemProfileRecord, 2*n)
		n, whole = runtime.MemProfile(records, true)
	}
	sums := make(map[string]allocated, n)
	for i := range records[:n] {
		key := h.name(&records[i])
		sum := sums[key]
		sums[key] = allocated{sum.count + records[i].AllocObjects, sum.bytes + records[i].AllocBytes}
	}
	return sums
}

// name returns the functions of a record's stack as one word: the profile has a record for each stack and size.
func (h *heapRecorder) name(record *runtime.MemProfileRecord) string {
	if key, known := h.names[record.Stack0]; known {
		return key
	}
	frames := functions(record.Stack())
	key := strings.Join(frames, "\n")
	h.names[record.Stack0], h.frames[key] = key, frames
	return key
}

// entries returns what all segments allocated, the heaviest first, at most 4096; and how many are left out.
func (h *heapRecorder) entries() ([]HeapEntry, int) {
	list := []HeapEntry{}
	if h == nil {
		return list, 0
	}
	for segment, sums := range h.found {
		for key, sum := range sums {
			list = append(list, HeapEntry{Segment: segment, Count: sum.count, Bytes: sum.bytes, Frames: h.frames[key]})
		}
	}
	sort.Slice(list, func(i, j int) bool {
		if list[i].Bytes != list[j].Bytes {
			return list[i].Bytes > list[j].Bytes
		}
		return strconv.Itoa(list[i].Segment)+strings.Join(list[i].Frames, "\n") < strconv.Itoa(list[j].Segment)+strings.Join(list[j].Frames, "\n")
	})
	if len(list) > largestHeap {
		return list[:largestHeap], len(list) - largestHeap
	}
	return list, 0
}
