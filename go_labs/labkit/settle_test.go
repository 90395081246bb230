package labkit

import (
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

// What Settle is for: afterwards a goroutine that sleeps, wherever it runs, and threads that are wanted at once allocate nothing
// but the goroutines themselves.
func TestWhatTheRuntimeAllocatesLateIsThereAfterwards(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	Settle()
	started, done := make(chan struct{}), make(chan struct{})
	const n = 8
	for i := 0; i < n; i++ {
		go func() {
			time.Sleep(time.Microsecond) // each has its own timer from here on
			started <- struct{}{}
			<-done
			for j := 0; j < 20; j++ {
				runtime.Gosched()
				time.Sleep(50 * time.Microsecond)
			}
			started <- struct{}{}
		}()
	}
	for i := 0; i < n; i++ {
		<-started
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	close(done)
	for i := 0; i < n; i++ {
		<-started
	}
	runtime.ReadMemStats(&after)

	if got := after.Mallocs - before.Mallocs; got != 0 {
		t.Errorf("%d allocations", got)
	}
}
