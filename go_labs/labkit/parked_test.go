package labkit

import (
	"reflect"
	"strings"
	"sync"
	"testing"
)

func TestReasonsReadsHeadersOfADump(t *testing.T) {
	dump := strings.Join([]string{
		"goroutine 1 [running]:", "main.main()", "\t/src/main.go:9 +0x1d", "",
		"goroutine 18 [sync.Mutex.Lock]:", "sync.runtime_SemacquireMutex(0x0?, 0x0?, 0x0?)", "",
		"goroutine 19 [sync.Mutex.Lock, 2 minutes]:", "",
		"goroutine 20 [sync.RWMutex.RLock (scan)]:", "",
		"goroutine 21 [sync.RWMutex.Lock, locked to thread]:", "",
		"goroutine 22 [chan receive (nil chan), 1 minutes]:", "",
		"goroutine 23 [select (no cases) (leaked) (scan)]:", "",
		"created by main.main in goroutine 1",
	}, "\n")

	got := reasons([]byte(dump))

	want := map[string]int{"running": 1, OnMutex: 2, OnRWMutexRead: 1, OnRWMutex: 1, OnNilReceive: 1, OnNoCases: 1}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("reasons = %v, want %v", got, want)
	}
}

func TestAwaitParkedSeesWaitersOfEachLock(t *testing.T) {
	var mutex sync.Mutex
	var rw sync.RWMutex
	done := make(chan struct{}, 5)
	start := func(n int, body func()) {
		for i := 0; i < n; i++ {
			go func() { body(); done <- struct{}{} }()
		}
	}

	mutex.Lock()
	rw.RLock()
	start(2, func() { mutex.Lock(); defer mutex.Unlock() })
	start(1, func() { rw.Lock(); defer rw.Unlock() })
	err := AwaitParked(OnRWMutex, 1)
	start(2, func() { rw.RLock(); defer rw.RUnlock() })
	for _, wanted := range []struct {
		reason string
		n      int
	}{{OnMutex, 2}, {OnRWMutexRead, 2}} {
		if err == nil {
			err = AwaitParked(wanted.reason, wanted.n)
		}
	}

	if err != nil {
		t.Error(err)
	}
	if err := AwaitParked(OnMutex, 1); err == nil || !strings.Contains(err.Error(), "2 goroutines are parked") {
		t.Errorf("AwaitParked with one waiter too many = %v, want an error that names 2", err)
	}
	mutex.Unlock()
	rw.RUnlock()
	for i := 0; i < 5; i++ {
		<-done
	}
}

func TestGoroutineIDIsTheOneThatADumpOfAllShows(t *testing.T) {
	ids := make(chan int64, 2)
	for i := 0; i < 2; i++ {
		go func() { ids <- GoroutineID() }()
	}

	first, second := <-ids, <-ids

	if first <= 0 || second <= 0 || first == second {
		t.Errorf("ids of two goroutines = %d and %d", first, second)
	}
}
