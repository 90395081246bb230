package main

import (
	"sync"
	"unsafe"
)

// address of a lock, for tools that must tell Go's locks from the kernel's. Go does not move heap objects.
func address[T sync.Mutex | sync.RWMutex](lock *T) uint64 {
	return uint64(uintptr(unsafe.Pointer(lock)))
}

// work is the critical section: a chain of n multiplications that no compiler shortens.
//
//go:noinline
func work(x uint64, n int) uint64 {
	for i := 0; i < n; i++ {
		x = x*6364136223846793005 + 1442695040888963407
	}
	return x
}

// draw is a xorshift generator (Marsaglia, 2003): each goroutine has its own, so that choosing reader or writer shares nothing.
type draw uint64

func (d *draw) next() uint64 {
	x := uint64(*d)
	x ^= x << 13
	x ^= x >> 7
	x ^= x << 17
	*d = draw(x)
	return x
}
