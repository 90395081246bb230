package main

import (
	"fmt"
	"runtime/debug"
	"strconv"

	"kmlab/labkit"
)

// delay measures how long after the root's cancellation whoever waits at each depth runs again: trees with one waiter for each context, in an
// order from the seed.
func (o *options) delay(r *labkit.Run) error {
	// No context is freed meanwhile, so that no address stands for two.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	list := []shape{{"chain", *o.depth, 1}, {"tree", 4, 2}, {"star", 1, 16}}
	segments := make([]*labkit.Segment, len(list))
	for i, sh := range list {
		s, err := r.Segment("delay", map[string]string{
			"shape": sh.name, "depth": strconv.Itoa(sh.depth), "width": strconv.Itoa(sh.width),
		})
		if err != nil {
			return err
		}
		segments[i] = s
	}
	var kept [][]*node
	for round := 0; round < *o.rounds; round++ {
		for _, i := range r.Random.Perm(len(list)) {
			nodes := grow(list[i], false)
			kept = append(kept, nodes)
			if err := measure(segments[i], nodes, o.Phase == "traced", round); err != nil {
				return fmt.Errorf("delay, round %d of the %s: %w", round, list[i].name, err)
			}
		}
	}
	for _, nodes := range kept {
		for _, n := range nodes {
			if n.ctx.Err() == nil {
				return fmt.Errorf("delay: context %s is not cancelled", n.path)
			}
		}
	}
	return nil
}

func measure(s *labkit.Segment, nodes []*node, traced bool, round int) error {
	s.Enter()
	defer s.Leave()
	w, err := wait(nodes)
	if err != nil {
		return err
	}
	if traced {
		tell(s, strconv.Itoa(round)+"/", nodes)
	}
	var began, returned int64
	through(func() {
		began = labkit.Monotonic()
		nodes[0].cancel()
		returned = labkit.Monotonic()
	})
	if err := w.join(); err != nil {
		return err
	}
	s.Counts["rounds"]++
	s.Counts["contexts"] += int64(len(nodes))
	s.Sample("returned_ns", float64(returned-began))
	for i, n := range nodes {
		s.Sample("depth"+strconv.Itoa(n.depth)+"_woken_ns", float64(w.woken[i]-began))
	}
	return nil
}
