package main

import (
	"context"
	"fmt"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"

	"kmlab/labkit"
)

// scene is a forced section on a tree. It fills in what must be counted, and does it.
type scene struct {
	name  string
	mixed bool
	done  string // who asks for done channels: nobody, the leaves' users, or one who waits for each
	run   func(s *labkit.Segment, nodes []*node) error
}

const (
	nobody  = "nobody"
	leaves  = "leaves"
	waiting = "waiters"
)

// forced cancels trees in known ways. Why the counts are exact, from context/context.go, the same in Go 1.21 to 1.27: (*cancelCtx).cancel is called
// for every context once by its parent's cancel or by its own cancel function, for a timerCtx through (*timerCtx).cancel; a WithValue has none. It
// closes the done channel if there is one, and there is one where Done was called, by a user or by propagateCancel for a child. A context that is
// cancelled already returns at once, without a close and without calling its children.
func (o *options) forced(r *labkit.Run) error {
	for _, depth := range *o.sizes {
		tree := shape{"tree", depth, *o.width}
		if err := tree.check(); err != nil {
			return err
		}
		for _, sh := range shapes(tree) {
			for _, layers := range []bool{false, true} {
				for _, done := range []string{nobody, leaves, waiting} {
					if err := force(r, sh, scene{"cancel", layers, done, cancelRoot}); err != nil {
						return err
					}
				}
			}
		}
		for _, sc := range []scene{
			{"repeated", false, nobody, cancelAgain},
			{"concurrent", false, leaves, cancelAtOnce},
			{"pruned", true, leaves, prune},
			{"late", false, nobody, comeLate},
		} {
			if err := force(r, tree, sc); err != nil {
				return err
			}
		}
		if err := force(r, shape{"single", 0, 0}, scene{"repeated", false, nobody, cancelAgain}); err != nil {
			return err
		}
	}
	return nil
}

// shapes are the tree, a chain as deep, and a root with as many children as the tree has leaves.
func shapes(tree shape) []shape {
	list := []shape{tree}
	if tree.width > 1 {
		list = append(list, shape{"chain", tree.depth, 1})
	}
	if tree.depth > 1 && tree.width > 1 {
		list = append(list, shape{"star", 1, leavesOf(tree)})
	}
	return list
}

func leavesOf(s shape) int {
	n := 1
	for d := 0; d < s.depth; d++ {
		n *= s.width
	}
	return n
}

func force(r *labkit.Run, sh shape, sc scene) error {
	layers := "plain"
	if sc.mixed {
		layers = "mixed"
	}
	s, err := r.Segment("forced", map[string]string{
		"scene": sc.name, "shape": sh.name, "depth": strconv.Itoa(sh.depth), "width": strconv.Itoa(sh.width), "layers": layers, "done": sc.done,
	})
	if err != nil {
		return err
	}
	nodes := grow(sh, sc.mixed)
	if sc.done == leaves {
		for _, n := range nodes {
			if n.leaf {
				n.ctx.Done()
				n.asked = true
			}
		}
	}
	tellClosed(s)
	s.Counts["contexts"] = int64(len(nodes))
	if err := s.Quiet(func() error { return watched(s, sc, nodes) }); err != nil {
		return fmt.Errorf("forced, %s of a %s of depth %d and width %d: %w", sc.name, sh.name, sh.depth, sh.width, err)
	}
	for _, n := range nodes {
		if n.ctx.Err() == nil {
			return fmt.Errorf("forced, %s: context %s is not cancelled", sc.name, n.path)
		}
	}
	return nil
}

// watched runs a scene with somebody at each done channel, where it wants that, and says what must be counted.
func watched(s *labkit.Segment, sc scene, nodes []*node) error {
	var present *waiters
	if sc.done == waiting {
		var err error
		if present, err = wait(nodes); err != nil {
			return err
		}
		s.Counts["waiters"] = int64(len(nodes))
	}
	s.Expected["park:chan receive"] = s.Counts["waiters"]
	s.Expected["cancel"] = int64(len(nodes))
	s.Expected["close"] = int64(asked(nodes))
	if err := sc.run(s, nodes); err != nil {
		return err
	}
	s.Counts["asked"] = int64(asked(nodes))
	if present != nil {
		return present.join()
	}
	return nil
}

// cancelRoot cancels the root once; its cancel calls those of its children, and so on.
func cancelRoot(s *labkit.Segment, nodes []*node) error {
	tell(s, "", nodes)
	through(nodes[0].cancel)
	return nil
}

// again is how often a cancellation is repeated.
const again = 3

// cancelAgain cancels the root, and then three times more: each enters cancel and returns.
func cancelAgain(s *labkit.Segment, nodes []*node) error {
	tell(s, "", nodes)
	s.Expected["cancel"] += again
	for i := 0; i < 1+again; i++ {
		through(nodes[0].cancel)
	}
	return nil
}

// cancellers is how many cancel one context at once.
const cancellers = 8

// cancelAtOnce lets several goroutines cancel the root: each enters cancel, the first one that has the lock does it. They wait for the word in a
// loop: a channel would add waits and a close of its own.
func cancelAtOnce(s *labkit.Segment, nodes []*node) error {
	tell(s, "", nodes)
	s.Expected["cancel"] += cancellers - 1
	var ready, ended atomic.Int64
	for i := 0; i < cancellers; i++ {
		go func() {
			ready.Add(1)
			for ready.Load() < cancellers {
				runtime.Gosched()
			}
			first(nodes[0].cancel)
			ended.Add(1)
		}()
	}
	for ended.Load() < cancellers {
		time.Sleep(pause)
	}
	return nil
}

// prune cancels every other leaf first: it leaves its parent's map (removeChild), so that the parent has fewer children when its turn comes.
func prune(s *labkit.Segment, nodes []*node) error {
	tell(s, "", nodes)
	for i, n := range nodes {
		if !n.leaf || i%2 == 0 {
			continue
		}
		through(n.cancel)
		n.parent.children--
		s.Counts["pruned"]++
	}
	tell(s, "", nodes)
	through(nodes[0].cancel)
	return nil
}

// comeLate makes contexts below a root that is cancelled already: each is cancelled while it is made (propagateCancel), before anyone can have
// asked for its channel.
func comeLate(s *labkit.Segment, nodes []*node) error {
	tell(s, "", nodes)
	through(nodes[0].cancel)
	s.Expected["cancel"] += int64(len(nodes))
	var made []*node
	through(func() {
		for i := range nodes {
			ctx, cancel := context.WithCancel(nodes[0].ctx)
			made = append(made, &node{path: strconv.Itoa(i), ctx: ctx, cancel: cancel})
		}
	})
	for _, n := range made {
		s.Addresses["context/late."+n.path] = address(n.ctx)
		s.Counts["children/late."+n.path] = 0
	}
	s.Counts["contexts"] += int64(len(made))
	return nil
}
