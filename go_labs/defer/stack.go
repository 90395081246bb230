package main

//go:noinline
func stackNine(int) {
	defer add()
	defer add()
	defer add()
	defer add()
	defer add()
	defer add()
	defer add()
	defer add()
	defer add()
}
