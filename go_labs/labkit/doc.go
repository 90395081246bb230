// Package labkit is what the workloads of all labs share: options, segments that the probes can tell apart, goroutines
// seen parked, the self-test of the goroutine id, Go's own profiles, and the one JSON document at the end.
//
// A workload's forced sections promise exact counts, so nothing in this package locks a sync.Mutex or sync.RWMutex, and
// nothing calls a library that might (fmt, encoding/json, WaitGroup, sync.Pool), between Enter and Leave. Waiting is done on channels
// and with time.Sleep: both park with wait reasons of their own, which no counter of a lock includes.
//
// It builds with Go 1.21 to 1.27 and needs only the standard library.
package labkit
