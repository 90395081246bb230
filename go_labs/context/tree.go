package main

import (
	"context"
	"fmt"
	"reflect"
	"strconv"
	"time"

	"kmlab/labkit"
)

// deepest is the largest depth: the stack of a close at that depth, two frames a level where a timer lies between, and the callers of the
// cancellation below it fit into what a probe keeps (MAX_FRAMES in bpf/src/shared.h).
const deepest = 8

// largest bounds the contexts of one tree.
const largest = 2048

// shape is a tree in which each context above the last level has width children.
type shape struct {
	name         string
	depth, width int
}

// contexts is how many the tree has, its root included.
func (s shape) contexts() int {
	n, level := 1, 1
	for d := 0; d < s.depth && n <= largest; d++ {
		level *= s.width
		n += level
	}
	return n
}

func (s shape) check() error {
	if s.contexts() > largest {
		return fmt.Errorf("a tree of depth %d and width %d has more than %d contexts", s.depth, s.width, largest)
	}
	return nil
}

// node is one context of a tree.
type node struct {
	path   string // "0" is the root, "0.1" its second child
	depth  int
	parent *node
	leaf   bool
	ctx    context.Context // a *cancelCtx or *timerCtx
	cancel context.CancelFunc
	// children is how many contexts its map holds, by the plan.
	children int
	// asked is whether it has a done channel, by the plan: making a child asks for its parent's (propagateCancel in context/context.go), and so
	// does the workload for some.
	asked bool
}

// key is what values are stored under.
type key struct{}

// grow makes a tree, level by level. A mixed one has a WithTimeout at each odd depth, its timer far away, and a WithValue above every child:
// neither is a cancelCtx of its own, the first embeds one, the second is passed over.
func grow(s shape, mixed bool) []*node {
	ctx, cancel := context.WithCancel(context.Background())
	nodes := []*node{{path: "0", ctx: ctx, cancel: cancel, leaf: s.depth == 0}}
	for i := 0; i < len(nodes); i++ {
		parent := nodes[i]
		for c := 0; c < s.width && parent.depth < s.depth; c++ {
			child := &node{path: parent.path + "." + strconv.Itoa(c), depth: parent.depth + 1, parent: parent}
			child.leaf = child.depth == s.depth
			above := parent.ctx
			if mixed {
				above = context.WithValue(above, key{}, c)
			}
			if mixed && child.depth%2 == 1 {
				child.ctx, child.cancel = context.WithTimeout(above, time.Hour)
			} else {
				child.ctx, child.cancel = context.WithCancel(above)
			}
			parent.children++
			parent.asked = true
			nodes = append(nodes, child)
		}
	}
	return nodes
}

// address is where a context lies: a cancelCtx is a pointer, and the first field of a timerCtx.
func address(ctx context.Context) uint64 { return uint64(reflect.ValueOf(ctx).Pointer()) }

// channel is where a done channel lies.
func channel(done <-chan struct{}) uint64 { return uint64(reflect.ValueOf(done).Pointer()) }

// tell says where each context and each done channel of the tree lies. It calls Done only where the channel is there already.
func tell(s *labkit.Segment, prefix string, nodes []*node) {
	for _, n := range nodes {
		s.Addresses["context/"+prefix+n.path] = address(n.ctx)
		s.Counts["children/"+prefix+n.path] = int64(n.children)
		if n.asked {
			s.Addresses["done/"+prefix+n.path] = channel(n.ctx.Done())
		}
	}
}

// tellClosed says where the channel lies that every context shares which is cancelled before anyone asked for its own (closedchan).
func tellClosed(s *labkit.Segment) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	s.Addresses["closedchan"] = channel(ctx.Done())
}

func asked(nodes []*node) (n int) {
	for _, node := range nodes {
		if node.asked {
			n++
		}
	}
	return n
}
