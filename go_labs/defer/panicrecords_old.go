//go:build !go1.22

package main

// panicRecords: up to Go 1.21 gopanic makes a record for the first frame with open-coded defers (runtime/panic.go, addOneOpenDeferFrame).
const panicRecords = 1
