package main

// Two small functions that differ in one defer. That one of them is inlined, and so nowhere in the program, is for who reads the program's
// table of functions; neither is kept from it by a directive.

func smallWithDefer(n *int) {
	defer add()
	*n++
}

func smallWithoutDefer(n *int) {
	*n++
	add()
}

// useBoth calls both, so that the linker has a reason to keep them.
//
//go:noinline
func useBoth() (n int) {
	smallWithDefer(&n)
	smallWithoutDefer(&n)
	return n
}
