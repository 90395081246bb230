// SPDX-License-Identifier: Apache-2.0

package main

import "encoding/binary"

// Sizes and numbers that src/shared.h and this package agree on; a test compares them with the object's own type information.
const (
	maxFrames       = 24
	maxReasons      = 64
	selfTestSegment = 511
	ringEventSize   = 64
	eventSize       = 64

	kindPark    = 1
	kindWaiting = 10
)

// event mirrors struct event of src/shared.h, which the ring buffer carries.
type event struct {
	StartNs    uint64
	DurationNs uint64
	Address    uint64
	Object     uint64
	Value      uint64
	Goid       uint64
	Stack      uint64
	Tid        uint32
	Segment    uint16
	Kind       uint8
	Reason     uint8
}

// parkState mirrors struct park of src/shared.h: a park under way.
type parkState struct {
	StartNs   uint64
	Address   uint64
	Semaphore uint64
	Stack     uint64
	Segment   uint16
	Reason    uint8
	Pad       [5]uint8
}

// goroutineKey mirrors struct goroutine_key of src/shared.h.
type goroutineKey struct {
	Goid uint64
	Tgid uint32
	Pad  uint32
}

// siteKey and siteValue mirror struct site_key and struct site of src/shared.h.
type siteKey struct {
	Stack   uint64
	Segment uint32
	Pad     uint32
}

type siteValue struct {
	Count uint64
	Bytes uint64
}

// stackRecord mirrors struct stack of src/shared.h.
type stackRecord struct {
	Depth uint64
	IP    [maxFrames]uint64
}

func decodeEvent(raw []byte) (event, bool) {
	if len(raw) != ringEventSize {
		return event{}, false
	}
	little := binary.LittleEndian
	return event{
		StartNs:    little.Uint64(raw[0:]),
		DurationNs: little.Uint64(raw[8:]),
		Address:    little.Uint64(raw[16:]),
		Object:     little.Uint64(raw[24:]),
		Value:      little.Uint64(raw[32:]),
		Goid:       little.Uint64(raw[40:]),
		Stack:      little.Uint64(raw[48:]),
		Tid:        little.Uint32(raw[56:]),
		Segment:    little.Uint16(raw[60:]),
		Kind:       raw[62],
		Reason:     raw[63],
	}, true
}

// appendEvent appends one record of events.bin; stack is an index into the stacks of trace.json, -1 for none.
func appendEvent(out []byte, e event, stack int32) []byte {
	little := binary.LittleEndian
	out = little.AppendUint64(out, e.StartNs)
	out = little.AppendUint64(out, e.DurationNs)
	out = little.AppendUint64(out, e.Address)
	out = little.AppendUint64(out, e.Object)
	out = little.AppendUint64(out, e.Value)
	out = little.AppendUint64(out, e.Goid)
	out = little.AppendUint32(out, uint32(stack))
	out = little.AppendUint32(out, e.Tid)
	out = little.AppendUint16(out, e.Segment)
	out = append(out, e.Kind, e.Reason)
	return little.AppendUint32(out, 0)
}
