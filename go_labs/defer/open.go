package main

//go:noinline
func openOne(int) {
	defer add()
}

//go:noinline
func openEight(int) {
	defer add()
	defer add()
	defer add()
	defer add()
	defer add()
	defer add()
	defer add()
	defer add()
}
