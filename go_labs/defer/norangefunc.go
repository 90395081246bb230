//go:build !go1.23

package main

// rangeKinds: there is no range over a function before Go 1.23.
func rangeKinds() []kind { return nil }
