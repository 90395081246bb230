// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"
	"unsafe"
)

var rawEvent = []byte{
	0x01, 0, 0, 0, 0, 0, 0, 0, // start
	0x02, 0, 0, 0, 0, 0, 0, 0, // duration
	0x08, 0, 0, 0, 0xc0, 0, 0, 0, // address
	0x03, 0, 0, 0, 0, 0, 0, 0, // object
	0x04, 0, 0, 0, 0, 0, 0, 0, // value
	0x12, 0, 0, 0, 0, 0, 0, 0, // goid
	0xff, 0, 0, 0, 0, 0, 0, 0x80, // stack key
	0x39, 0x30, 0, 0, // tid
	0xff, 0x01, // segment
	1, 22, // kind, reason
}

func TestDecodeEvent(t *testing.T) {
	got, ok := decodeEvent(rawEvent)

	want := event{1, 2, 0xc000000008, 3, 4, 18, 0x80000000000000ff, 12345, 511, 1, 22}
	if !ok || got != want {
		t.Errorf("decodeEvent = %+v, %v, want %+v", got, ok, want)
	}
}

func TestDecodeEventRefusesAnotherLength(t *testing.T) {
	for _, raw := range [][]byte{nil, rawEvent[:63], append(rawEvent[:64:64], 0)} {
		if _, ok := decodeEvent(raw); ok {
			t.Errorf("decodeEvent took %d bytes", len(raw))
		}
	}
}

// In memory the structs have no padding, so they are what the programs write.
func TestStructsHaveNoPadding(t *testing.T) {
	if size := unsafe.Sizeof(event{}); size != ringEventSize {
		t.Errorf("event has %d bytes, want %d", size, ringEventSize)
	}
	if size := unsafe.Sizeof(stackRecord{}); size != 8+8*maxFrames {
		t.Errorf("stackRecord has %d bytes, want %d", size, 8+8*maxFrames)
	}
}

func TestAppendEventReplacesTheStackByItsIndex(t *testing.T) {
	event, _ := decodeEvent(rawEvent)

	record := appendEvent(nil, event, -1)

	want := append([]byte{}, rawEvent[:48]...)
	want = append(want, 0xff, 0xff, 0xff, 0xff) // stack -1
	want = append(want, rawEvent[56:64]...)     // tid, segment, kind, reason
	want = append(want, 0, 0, 0, 0)             // pad
	if len(record) != eventSize || string(record) != string(want) {
		t.Errorf("appendEvent = %x, want %x", record, want)
	}
}
