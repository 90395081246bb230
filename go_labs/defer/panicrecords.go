//go:build go1.22

package main

// panicRecords is how many records gopanic makes for a function with open-coded defers. From Go 1.22 on it walks the stack instead
// (runtime/panic.go, nextFrame).
const panicRecords = 0
