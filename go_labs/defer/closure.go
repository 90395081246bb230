package main

// loopClosure defers closures over the loop's variable: each is an object of its own, whatever becomes of the record.
//
//go:noinline
func loopClosure(depth int) {
	for i := 0; i < depth; i++ {
		n := i
		defer func() { sink += n }()
	}
}
