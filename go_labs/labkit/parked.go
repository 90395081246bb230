package labkit

import (
	"bytes"
	"errors"
	"runtime"
	"strconv"
	"time"
)

// Wait reasons as runtime.Stack prints them, the same from Go 1.21 to 1.27 (waitReasonStrings in runtime/runtime2.go).
const (
	OnMutex       = "sync.Mutex.Lock"
	OnRWMutexRead = "sync.RWMutex.RLock"
	OnRWMutex     = "sync.RWMutex.Lock"
	OnReceive     = "chan receive"
	OnSend        = "chan send"
	OnSelect      = "select"
	OnNilReceive  = "chan receive (nil chan)"
	OnNilSend     = "chan send (nil chan)"
	OnNoCases     = "select (no cases)"
	OnSleep       = "sleep"
	OnNetwork     = "IO wait"
)

const (
	parkedPatience = 30 * time.Second
	largestDump    = 16 << 20
)

var header = []byte("goroutine ")

// In the order in which they are taken off, the last first.
var additions = [][]byte{[]byte(" (durable)"), []byte(" (scan)"), []byte(" (leaked)")}

// dump is reused: a dump that allocates each time would bring collections into forced sections. Only one goroutine, the
// one that drives the section, looks for parked ones.
var dump = make([]byte, 256<<10)

// Parked returns how many goroutines are parked, by wait reason. runtime.Stack stops the world and prints a wait reason only for
// goroutines whose state is waiting, so what it counts is parked and not on its way there. Not to be called concurrently.
func Parked() map[string]int {
	n := runtime.Stack(dump, true)
	for n == len(dump) && len(dump) < largestDump {
		dump = make([]byte, 2*len(dump))
		n = runtime.Stack(dump, true)
	}
	return reasons(dump[:n])
}

// reasons reads the headers of a dump: "goroutine 18 [sync.Mutex.Lock, 2 minutes]:"; under a collection the state can carry
// " (scan)".
func reasons(text []byte) map[string]int {
	counts := map[string]int{}
	for len(text) > 0 {
		line := text
		if end := bytes.IndexByte(text, '\n'); end >= 0 {
			line, text = text[:end], text[end+1:]
		} else {
			text = nil
		}
		if !bytes.HasPrefix(line, header) {
			continue
		}
		open, shut := bytes.IndexByte(line, '['), bytes.IndexByte(line, ']')
		if open < 0 || shut < open {
			continue
		}
		counts[stateWords(line[open+1:shut])]++
	}
	return counts
}

// stateWords takes off what goroutineheader (runtime/traceback.go) adds; "(nil chan)" and "(no cases)" are words of the reason itself.
func stateWords(state []byte) string {
	if cut := bytes.IndexByte(state, ','); cut >= 0 {
		state = state[:cut]
	}
	for _, added := range additions {
		state = bytes.TrimSuffix(state, added)
	}
	return string(state)
}

// AwaitParked returns when exactly n goroutines of this process are parked for reason. It fails after 30 s, and at once
// when there are more than n: then something waits that the section did not plan.
func AwaitParked(reason string, n int) error {
	pause := 200 * time.Microsecond
	for deadline := time.Now().Add(parkedPatience); ; {
		seen := Parked()[reason]
		if seen == n {
			return nil
		}
		if seen > n {
			return errors.New(strconv.Itoa(seen) + " goroutines are parked for " + reason + ", planned were " + strconv.Itoa(n))
		}
		if time.Now().After(deadline) {
			return errors.New("after " + parkedPatience.String() + " only " + strconv.Itoa(seen) + " of " + strconv.Itoa(n) +
				" goroutines are parked for " + reason)
		}
		time.Sleep(pause)
		if pause < 5*time.Millisecond {
			pause *= 2
		}
	}
}

// AwaitGoroutines returns when this process has n goroutines, the runtime's own not counted. One that ended is counted until the
// runtime has freed it, at the end of gdestroy (goexit0 in Go 1.21): once it is gone, a probe there has seen it. While goroutines
// end, the count may be too high for a moment and never too low (gcount in runtime/proc.go). It fails after 30 s.
func AwaitGoroutines(n int) error {
	pause := 200 * time.Microsecond
	for deadline := time.Now().Add(parkedPatience); ; {
		seen := runtime.NumGoroutine()
		if seen <= n {
			return nil
		}
		if time.Now().After(deadline) {
			return errors.New("after " + parkedPatience.String() + " there are still " + strconv.Itoa(seen) + " goroutines instead of " + strconv.Itoa(n))
		}
		time.Sleep(pause)
		if pause < 5*time.Millisecond {
			pause *= 2
		}
	}
}

// GoroutineID returns the id of the calling goroutine, read from the header of its own stack dump: the one place where Go
// shows it.
func GoroutineID() int64 {
	var buf [64]byte
	n := runtime.Stack(buf[:], false)
	rest := bytes.TrimPrefix(buf[:n], header)
	end := bytes.IndexByte(rest, ' ')
	if end < 0 {
		return -1
	}
	id, err := strconv.ParseInt(string(rest[:end]), 10, 64)
	if err != nil {
		return -1
	}
	return id
}
