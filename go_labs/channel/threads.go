package main

import (
	"math/bits"
	"syscall"
	"unsafe"
)

const schedFIFO = 1 // SCHED_FIFO, include/uapi/linux/sched.h

// cpuMask has a bit for each of the first 1024 CPUs.
type cpuMask [16]uint64

// pinThread binds the calling thread to the lowest CPU that it may run on, the same for all; it says whether that went well.
func pinThread() bool {
	var mask cpuMask
	at := uintptr(unsafe.Pointer(&mask))
	if _, _, errno := syscall.RawSyscall(syscall.SYS_SCHED_GETAFFINITY, 0, unsafe.Sizeof(mask), at); errno != 0 {
		return false
	}
	lowest := cpuMask{}
	for i, word := range mask {
		if word != 0 {
			lowest[i] = 1 << bits.TrailingZeros64(word)
			break
		}
	}
	at = uintptr(unsafe.Pointer(&lowest))
	_, _, errno := syscall.RawSyscall(syscall.SYS_SCHED_SETAFFINITY, 0, unsafe.Sizeof(lowest), at)
	return errno == 0
}

// raiseThread gives the calling thread the lowest of the real-time priorities, which needs CAP_SYS_NICE; it says whether that went
// well.
func raiseThread() bool {
	priority := int32(1) // struct sched_param
	_, _, errno := syscall.RawSyscall(syscall.SYS_SCHED_SETSCHEDULER, 0, schedFIFO, uintptr(unsafe.Pointer(&priority)))
	return errno == 0
}
