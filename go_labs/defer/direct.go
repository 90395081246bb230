package main

//go:noinline
func direct(int) {
	add()
}
