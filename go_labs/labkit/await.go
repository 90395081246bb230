package labkit

import (
	"errors"
	"strconv"
	"sync/atomic"
	"time"
)

// AwaitCount returns when counter has reached n, as goroutines that end raise it: a wait that is on no channel and no lock. It fails
// after 30 s.
func AwaitCount(counter *atomic.Int64, n int) error {
	pause := 100 * time.Microsecond
	for deadline := time.Now().Add(parkedPatience); counter.Load() < int64(n); {
		if time.Now().After(deadline) {
			return errors.New("after " + parkedPatience.String() + " only " + strconv.FormatInt(counter.Load(), 10) + " of " + strconv.Itoa(n) +
				" goroutines are done")
		}
		time.Sleep(pause)
		if pause < 5*time.Millisecond {
			pause *= 2
		}
	}
	return nil
}
