package main

import (
	"runtime"
	"runtime/debug"
	"strconv"

	"kmlab/labkit"
)

// alloc counts what defers allocate once the runtime's pools are filled: each kind, and one with a closure, which is what really
// allocates. Half of the rounds begin with a collection, which empties the pools (clearpools in runtime/mgc.go).
func (o *options) alloc(r *labkit.Run) error {
	list := append(kinds(), kind{"loop-closure", "closure.go", func(depth int) int { return depth }, loopClosure, none})
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	for _, collected := range []bool{false, true} {
		for _, k := range list {
			s, err := r.Segment("alloc", map[string]string{
				"kind": k.name, "collected": strconv.FormatBool(collected), "defers": strconv.Itoa(k.defers(*o.depth)),
			})
			if err != nil {
				return err
			}
			k.call(*o.depth)
			s.Enter()
			for round := 0; round < *o.rounds; round++ {
				if collected {
					runtime.GC()
				}
				objects, bytes := allocated(func() {
					for n := 0; n < *o.calls; n++ {
						k.call(*o.depth)
					}
				})
				executed := float64(*o.calls * k.defers(*o.depth))
				s.Sample("objects_per_defer", float64(objects)/executed)
				s.Sample("bytes_per_defer", float64(bytes)/executed)
			}
			s.Leave()
			s.Counts["executed"] = int64(*o.rounds * *o.calls * k.defers(*o.depth))
		}
	}
	return nil
}

var before, after runtime.MemStats

// allocated runs body and returns how many objects and bytes the whole program allocated meanwhile; ReadMemStats stops the world and
// counts exactly (runtime/mstats.go).
func allocated(body func()) (objects, bytes uint64) {
	runtime.ReadMemStats(&before)
	body()
	runtime.ReadMemStats(&after)
	return after.Mallocs - before.Mallocs, after.TotalAlloc - before.TotalAlloc
}
