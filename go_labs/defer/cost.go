package main

import (
	"strconv"
	"time"

	"kmlab/labkit"
)

// cost measures slices of calls, each kind in turn in an order from the seed: neighbours in time make pairs.
func (o *options) cost(r *labkit.Run) error {
	list := kinds()
	segments := make([]*labkit.Segment, len(list))
	for i, k := range list {
		s, err := r.Segment("cost", map[string]string{"kind": k.name, "defers": strconv.Itoa(k.defers(*o.depth))})
		if err != nil {
			return err
		}
		segments[i] = s
		k.call(*o.depth) // what is allocated once is there
	}
	for slice := 0; slice < *o.slices; slice++ {
		for _, i := range r.Random.Perm(len(list)) {
			k, s := list[i], segments[i]
			s.Enter()
			start := time.Now()
			for n := 0; n < *o.calls; n++ {
				k.call(*o.depth)
			}
			took := time.Since(start)
			s.Leave()
			calls := float64(*o.calls)
			s.Sample("ns_per_call", float64(took.Nanoseconds())/calls)
			s.Sample("ns_per_defer", float64(took.Nanoseconds())/(calls*float64(k.defers(*o.depth))))
		}
	}
	return nil
}
