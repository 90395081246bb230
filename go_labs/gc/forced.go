package main

import (
	"runtime"
	"strconv"

	"kmlab/labkit"
)

// Objects are kept alive here one at a time, so that none lives on the stack (cmd/compile/internal/escape).
var (
	tinySink   *[tinyBytes]byte
	noscanSink *[noscanBytes]byte
	scanSink   *scanned
	headerSink *headed
	sliceSink  []byte
)

const (
	tinyBytes   = 8        // below 16 and without pointers: shares a block of 16 (the tiny allocator of runtime/malloc.go)
	noscanBytes = 64       // a size class of its own, without pointers
	scanBytes   = 48       // with pointers, their bitmap at the end of the span (from Go 1.22 on)
	headerBytes = 1016     // with pointers and above 512: an 8-byte header from Go 1.22 on makes it 1024
	sliceBytes  = 4096     // by runtime.makeslice, which calls mallocgc in every version
	largeBytes  = 64 << 10 // above 32 KiB: a span of its own
)

type scanned struct {
	next *scanned
	_    [scanBytes - 8]byte
}

type headed struct {
	next *headed
	_    [headerBytes - 8]byte
}

//go:noinline
func allocateTiny(n int) {
	for i := 0; i < n; i++ {
		tinySink = new([tinyBytes]byte)
	}
}

//go:noinline
func allocateNoscan(n int) {
	for i := 0; i < n; i++ {
		noscanSink = new([noscanBytes]byte)
	}
}

//go:noinline
func allocateScan(n int) {
	for i := 0; i < n; i++ {
		scanSink = new(scanned)
	}
}

//go:noinline
func allocateHeader(n int) {
	for i := 0; i < n; i++ {
		headerSink = new(headed)
	}
}

//go:noinline
func allocateSlice(n, size int) {
	for i := 0; i < n; i++ {
		sliceSink = make([]byte, size)
	}
}

//go:noinline
func allocateLarge(n, size int) {
	for i := 0; i < n; i++ {
		sliceSink = make([]byte, size)
	}
}

// kinds are the ways to allocate, each at a place of its own.
var kinds = []struct {
	name, site string
	bytes      int64
	run        func(n int)
}{
	{"tiny", "main.allocateTiny", tinyBytes, allocateTiny},
	{"noscan", "main.allocateNoscan", noscanBytes, allocateNoscan},
	{"scan", "main.allocateScan", scanBytes, allocateScan},
	{"scan with header", "main.allocateHeader", headerBytes, allocateHeader},
	{"slice", "main.allocateSlice", sliceBytes, func(n int) { allocateSlice(n, sliceBytes) }},
	{"large", "main.allocateLarge", largeBytes, func(n int) { allocateLarge(n, largeBytes) }},
}

// Read into variables of the program: a MemStats in a function would be one more allocation.
var statsBefore, statsAfter runtime.MemStats

// reading is what the runtime itself counted meanwhile.
type reading struct {
	mallocs, bytes, collections, pauseNs, pauses int64
}

// stops is how often measure stops the world.
const stops = 2

// measure runs body between two readings of MemStats, which flush what every P has counted for itself: their difference is
// exact. Each reading stops the world once; nothing here allocates.
func measure(body func()) reading {
	pauses := labkit.Pauses()
	runtime.ReadMemStats(&statsBefore)
	body()
	runtime.ReadMemStats(&statsAfter)
	return reading{
		mallocs: int64(statsAfter.Mallocs - statsBefore.Mallocs), bytes: int64(statsAfter.TotalAlloc - statsBefore.TotalAlloc),
		collections: int64(statsAfter.NumGC - statsBefore.NumGC), pauseNs: int64(statsAfter.PauseTotalNs - statsBefore.PauseTotalNs),
		pauses: labkit.Pauses() - pauses,
	}
}

// keep writes a reading down, outside the segment: a map that grows allocates.
func (m reading) keep(s *labkit.Segment) {
	s.Counts["memstats_mallocs"] = m.mallocs
	s.Counts["memstats_bytes"] = m.bytes
	s.Counts["memstats_collections"] = m.collections
	s.Counts["memstats_pause_ns"] = m.pauseNs
	s.Counts["runtime_pauses"] = m.pauses
}

// forced allocates known numbers at known places. Why the counts are exact: one goroutine runs, the collector is off, what the runtime
// itself allocates late is there already (labkit.Settle), and between the readings nothing else allocates. Each new
// or make is one call of mallocgc or of one of its forms by size class, tiny objects too (runtime/malloc.go, 1.21 to 1.27).
func (o *options) forced(r *labkit.Run) error {
	for _, n := range *o.sizes {
		for _, kind := range kinds {
			s, err := r.Segment("forced", map[string]string{
				"kind": kind.name, "site": kind.site, "objects": strconv.Itoa(n), "bytes": strconv.FormatInt(kind.bytes, 10),
			})
			if err != nil {
				return err
			}
			s.Expected["malloc"] = int64(n)
			s.Expected["malloc_bytes"] = int64(n) * kind.bytes
			s.Expected["collections"] = 0
			s.Expected["stw"] = stops
			allocate := kind.run
			quietly(s, func() { allocate(n) })
		}
		if err := o.collections(r, n); err != nil {
			return err
		}
	}
	return nil
}

// collections asks for a tenth of n collections. Each stops the world twice: to end the sweep, and to end the marking
// (gcStart and gcMarkDone, runtime/mgc.go). gcMarkDone would stop it once more where write barriers had left work behind, but
// no other goroutine writes a pointer meanwhile. How much the collector itself allocates differs by version.
func (o *options) collections(r *labkit.Run, n int) error {
	n = (n + 9) / 10
	s, err := r.Segment("forced", map[string]string{"kind": "collection", "collections": strconv.Itoa(n)})
	if err != nil {
		return err
	}
	s.Expected["collections"] = int64(n)
	s.Expected["stw"] = int64(2*n + stops)
	quietly(s, func() {
		for i := 0; i < n; i++ {
			runtime.GC()
		}
	})
	return nil
}

// quietly runs body in s with the collector off, from a swept heap.
func quietly(s *labkit.Segment, body func()) {
	var found reading
	runtime.GC() // also sweeps to the end
	_ = s.Quiet(func() error {
		found = measure(body)
		return nil
	})
	found.keep(s)
}
