package main

func recovered() {
	if recover() == nil {
		panic("there was no panic to recover from")
	}
}

//go:noinline
func panicking(int) {
	defer recovered()
	panic(reason)
}

// reason is made once: a value that panic has to put into an interface would be allocated each time.
var reason any = "on purpose"
