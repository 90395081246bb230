// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"
	"unsafe"
)

var rawPark = []byte{
	0x01, 0, 0, 0, 0, 0, 0, 0, // start
	0x02, 0, 0, 0, 0, 0, 0, 0, // duration
	0x08, 0, 0, 0, 0xc0, 0, 0, 0, // lock
	0x12, 0, 0, 0, 0, 0, 0, 0, // goid
	0xff, 0, 0, 0, 0, 0, 0, 0x80, // stack key
	0x39, 0x30, 0, 0, // tid
	0xff, 0x01, // segment
	1, 22, // kind, reason
}

func TestDecodePark(t *testing.T) {
	got, ok := decodePark(rawPark)

	want := parkEvent{1, 2, 0xc000000008, 18, 0x80000000000000ff, 12345, 511, 1, 22}
	if !ok || got != want {
		t.Errorf("decodePark = %+v, %v, want %+v", got, ok, want)
	}
}

func TestDecodeParkRefusesAnotherLength(t *testing.T) {
	for _, raw := range [][]byte{nil, rawPark[:47], append(rawPark[:48:48], 0)} {
		if _, ok := decodePark(raw); ok {
			t.Errorf("decodePark took %d bytes", len(raw))
		}
	}
}

// In memory the structs have no padding, so they are what the programs write.
func TestStructsHaveNoPadding(t *testing.T) {
	if size := unsafe.Sizeof(parkEvent{}); size != parkEventSize {
		t.Errorf("parkEvent has %d bytes, want %d", size, parkEventSize)
	}
	if size := unsafe.Sizeof(stackRecord{}); size != 8+8*maxFrames {
		t.Errorf("stackRecord has %d bytes, want %d", size, 8+8*maxFrames)
	}
}

func TestAppendEventReplacesTheStackByItsIndex(t *testing.T) {
	event, _ := decodePark(rawPark)

	record := appendEvent(nil, event, -1)

	want := append([]byte{}, rawPark[:32]...)
	want = append(want, 0xff, 0xff, 0xff, 0xff) // stack -1
	want = append(want, rawPark[40:48]...)      // tid, segment, kind, reason
	want = append(want, 0, 0, 0, 0)             // pad
	if len(record) != eventSize || string(record) != string(want) {
		t.Errorf("appendEvent = %x, want %x", record, want)
	}
}
