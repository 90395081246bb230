package labkit

import (
	"bytes"
	"errors"
	"runtime"
	"strconv"
	"sync/atomic"
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
		reason := line[open+1 : shut]
		if cut := bytes.IndexAny(reason, ",("); cut >= 0 {
			reason = bytes.TrimRight(reason[:cut], " ")
		}
		counts[string(reason)]++
	}
	return counts
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
