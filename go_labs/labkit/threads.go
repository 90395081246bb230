package labkit

import "runtime"

// SpareThreads sees to it that n threads of the runtime exist, idle. A thread that is made later allocates (runtime.allocm,
// malg), and preemption alone can make the scheduler want one: a section that counts allocations exactly has them beforehand.
// Threads of the runtime never end, except with a goroutine that stays locked to its own.
func SpareThreads(n int) {
	locked, leave, left := make(chan struct{}), make(chan struct{}), make(chan struct{})
	for i := 0; i < n; i++ {
		go func() {
			runtime.LockOSThread()
			locked <- struct{}{}
			<-leave
			runtime.UnlockOSThread()
			left <- struct{}{}
		}()
	}
	for i := 0; i < n; i++ {
		<-locked
	}
	close(leave)
	for i := 0; i < n; i++ {
		<-left
	}
}
