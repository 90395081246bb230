// SPDX-License-Identifier: Apache-2.0

package main

import "encoding/binary"

// Sizes that src/shared.h and this package agree on; a test compares them with the object's own type information.
const (
	maxFrames       = 24
	selfTestSegment = 511
	parkEventSize   = 48
	eventSize       = 48
)

// parkEvent mirrors struct park_event of src/shared.h, which the ring buffer carries.
type parkEvent struct {
	StartNs    uint64
	DurationNs uint64
	Lock       uint64
	Goid       uint64
	Stack      uint64
	Tid        uint32
	Segment    uint16
	Kind       uint8
	Reason     uint8
}

// stackRecord mirrors struct stack of src/shared.h.
type stackRecord struct {
	Depth uint64
	IP    [maxFrames]uint64
}

func decodePark(raw []byte) (parkEvent, bool) {
	if len(raw) != parkEventSize {
		return parkEvent{}, false
	}
	little := binary.LittleEndian
	return parkEvent{
		StartNs:    little.Uint64(raw[0:]),
		DurationNs: little.Uint64(raw[8:]),
		Lock:       little.Uint64(raw[16:]),
		Goid:       little.Uint64(raw[24:]),
		Stack:      little.Uint64(raw[32:]),
		Tid:        little.Uint32(raw[40:]),
		Segment:    little.Uint16(raw[44:]),
		Kind:       raw[46],
		Reason:     raw[47],
	}, true
}

// appendEvent appends one record of events.bin; stack is an index into the stacks of trace.json, -1 for none.
func appendEvent(out []byte, e parkEvent, stack int32) []byte {
	little := binary.LittleEndian
	out = little.AppendUint64(out, e.StartNs)
	out = little.AppendUint64(out, e.DurationNs)
	out = little.AppendUint64(out, e.Lock)
	out = little.AppendUint64(out, e.Goid)
	out = little.AppendUint32(out, uint32(stack))
	out = little.AppendUint32(out, e.Tid)
	out = little.AppendUint16(out, e.Segment)
	out = append(out, e.Kind, e.Reason)
	return little.AppendUint32(out, 0)
}
