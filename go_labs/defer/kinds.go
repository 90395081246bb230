package main

// sink is what every deferred function adds to: no closure, so that nothing but the defer itself costs anything.
var sink int

func add() { sink++ }

// kind is one way in which the compiler makes defers. Each lies in a file of its own, so that the compiler's list, which has files and
// lines, says which is which.
type kind struct {
	name   string
	file   string
	defers func(depth int) int // executed in one call
	call   func(depth int)
	// expected are the runtime's functions that one call reaches, by counter.
	expected func(depth int) map[string]int
}

func fixed(n int) func(int) int { return func(int) int { return n } }

func none(int) map[string]int { return nil }

// kinds lists them, those without a defer first. Why the numbers are exact, from cmd/compile/internal/walk and ssagen, the same in Go 1.21 to
// 1.27: a function has open-coded defers where none is in a loop, there are at most eight, and returns times defers is at most 15
// (ssagen/ssa.go, maxOpenDefers; walk/stmt.go); otherwise a defer in a loop is made by deferproc and any other by deferprocStack, and the
// function ends in one deferreturn. Open-coded ones run without the runtime.
func kinds() []kind {
	list := []kind{
		{"direct", "direct.go", fixed(1), direct, none},
		{"open-1", "open.go", fixed(1), openOne, none},
		{"open-8", "open.go", fixed(8), openEight, none},
		{"stack-9", "stack.go", fixed(9), stackNine, func(int) map[string]int {
			return map[string]int{"deferproc_stack": 9, "defer_return": 1}
		}},
		{"returns", "returns.go", fixed(4), func(int) { manyReturns(sink) }, func(int) map[string]int {
			return map[string]int{"deferproc_stack": 4, "defer_return": 1}
		}},
		{"loop", "loop.go", func(depth int) int { return depth }, loop, func(depth int) map[string]int {
			return map[string]int{"deferproc": depth, "defer_alloc": depth, "defer_return": 1}
		}},
		// gopanic runs an open-coded defer from the function's own data; after recover the function goes on at its deferreturn.
		{"panic", "panicking.go", fixed(1), panicking, func(int) map[string]int {
			return map[string]int{"panics": 1, "defer_return": 1, "defer_alloc": panicRecords}
		}},
	}
	return append(list, rangeKinds()...)
}
