package main

// manyReturns has four defers and four returns: 16, one more than the compiler writes out.
//
//go:noinline
func manyReturns(n int) int {
	defer add()
	defer add()
	defer add()
	defer add()
	switch n % 4 {
	case 0:
		return n + 1
	case 1:
		return n + 2
	case 2:
		return n + 3
	}
	return n
}
