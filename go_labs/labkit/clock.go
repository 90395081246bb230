package labkit

import (
	"syscall"
	"unsafe"
)

const clockMonotonic = 1 // CLOCK_MONOTONIC, include/uapi/linux/time.h: what bpf_ktime_get_ns reads

// Monotonic returns CLOCK_MONOTONIC in nanoseconds, the clock of the probes. time.Now hides its monotonic reading, so this asks the
// kernel, by a raw system call that does not pass through Go's scheduler.
func Monotonic() int64 {
	var ts syscall.Timespec
	_, _, errno := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, clockMonotonic, uintptr(unsafe.Pointer(&ts)), 0)
	if errno != 0 {
		panic("clock_gettime(CLOCK_MONOTONIC): " + errno.Error())
	}
	return ts.Nano()
}
