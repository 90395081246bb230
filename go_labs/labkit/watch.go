package labkit

import "sync/atomic"

var watched atomic.Uint64

// Watch tells the probes the address of one object, to be looked for in the registers with which functions are called; 0 ends
// it. One process watches one object at a time.
func Watch(address uint64) {
	watch(address)
}

// watch is where the probe sits: symbol kmlab/labkit.watch, address in RAX. It is made like mark, for the same reasons.
//
//go:noinline
func watch(address uint64) {
	noteWatched(address)
}

//go:noinline
func noteWatched(address uint64) {
	watched.Store(address)
}
