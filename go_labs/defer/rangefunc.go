//go:build go1.23

package main

// rangeKinds has the defers in the body of a range over a function: deferprocat, from Go 1.23 on. deferrangefunc makes one record for the
// function's frame, on the heap, and each defer one more. The body is a function of its own that has a defer, so that each round ends in
// a deferreturn, which finds nothing to do in that frame, and so does the function.
func rangeKinds() []kind {
	return []kind{{"range", "rangefunc.go", func(depth int) int { return depth }, rangeOver, func(depth int) map[string]int {
		return map[string]int{"defer_at": depth, "defer_alloc": depth + 1, "defer_return": depth + 1}
	}}}
}

//go:noinline
func rangeOver(depth int) {
	for range upTo(depth) {
		defer add()
	}
}

func upTo(n int) func(func(int) bool) {
	return func(yield func(int) bool) {
		for i := 0; i < n && yield(i); i++ {
		}
	}
}
