package labkit

import "sync/atomic"

// SelfTestSegment is the segment in which the self-test runs; LastSegment is the last that a workload may use.
const (
	SelfTestSegment = 511
	LastSegment     = 510
)

var current atomic.Int64

// Mark says that segment id begins now; 0 is outside every segment. Nothing but the probe on mark reads it in the kernel, so
// one process is in one segment at a time.
func Mark(id int) {
	mark(id)
}

// mark is where the probe sits: symbol kmlab/labkit.mark, id in RAX at the point after the stack check. It is never
// inlined, and it calls a function that is never inlined either: a leaf would have no frame, and with it neither a stack check
// nor the push of the frame pointer that a probe prefers.
//
//go:noinline
func mark(id int) {
	note(id)
}

//go:noinline
func note(id int) {
	current.Store(int64(id))
}
