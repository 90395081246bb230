package main

//go:noinline
func loop(depth int) {
	for i := 0; i < depth; i++ {
		defer add()
	}
}
