// SPDX-License-Identifier: Apache-2.0

//go:build object

package main

import (
	"os"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf/btf"
)

// The object is named by the environment: tests/bpf/test_objects.py builds it and runs these with -tags object.
func objectTypes(t *testing.T) *btf.Spec {
	t.Helper()
	object, err := openObject(os.Getenv("LABTRACE_OBJECT"))
	if err != nil {
		t.Fatal(err)
	}
	return object.Types
}

func structOf(t *testing.T, name string) *btf.Struct {
	t.Helper()
	var found *btf.Struct
	if err := objectTypes(t).TypeByName(name, &found); err != nil {
		t.Fatal(err)
	}
	return found
}

func TestEventsHaveTheLayoutOfTheObject(t *testing.T) {
	var e event
	want := map[string]uintptr{
		"start_ns": unsafe.Offsetof(e.StartNs), "duration_ns": unsafe.Offsetof(e.DurationNs), "address": unsafe.Offsetof(e.Address),
		"object": unsafe.Offsetof(e.Object), "value": unsafe.Offsetof(e.Value), "goid": unsafe.Offsetof(e.Goid),
		"stack": unsafe.Offsetof(e.Stack), "tid": unsafe.Offsetof(e.Tid), "segment": unsafe.Offsetof(e.Segment),
		"kind": unsafe.Offsetof(e.Kind), "reason": unsafe.Offsetof(e.Reason),
	}

	event := structOf(t, "event")

	if uintptr(event.Size) != unsafe.Sizeof(e) || len(event.Members) != len(want) {
		t.Errorf("event has %d bytes and %d members", event.Size, len(event.Members))
	}
	for _, member := range event.Members {
		if offset, ok := want[member.Name]; !ok || uintptr(member.Offset.Bytes()) != offset {
			t.Errorf("%s is at %d in the object, at %d here", member.Name, member.Offset.Bytes(), offset)
		}
	}
}

func TestStacksHaveTheLayoutOfTheObject(t *testing.T) {
	var record stackRecord

	stack := structOf(t, "stack")

	if uintptr(stack.Size) != unsafe.Sizeof(record) || uintptr(stack.Members[1].Offset.Bytes()) != unsafe.Offsetof(record.IP) {
		t.Errorf("stack: %v", stack)
	}
}

func TestMapsThatTheLoaderReadsHaveTheLayoutOfTheObject(t *testing.T) {
	for name, size := range map[string]uintptr{
		"park": unsafe.Sizeof(parkState{}), "goroutine_key": unsafe.Sizeof(goroutineKey{}), "site_key": unsafe.Sizeof(siteKey{}),
		"site": unsafe.Sizeof(siteValue{}), "reason_counters": 8 * maxReasons,
	} {
		if found := structOf(t, name); uintptr(found.Size) != size {
			t.Errorf("%s has %d bytes in the object, %d here", name, found.Size, size)
		}
	}
}

func TestKindsHaveTheNumbersOfTheObject(t *testing.T) {
	var kinds *btf.Enum
	if err := objectTypes(t).TypeByName("kind", &kinds); err != nil {
		t.Fatal(err)
	}
	found := map[string]uint64{}
	for _, value := range kinds.Values {
		found[value.Name] = value.Value
	}
	if found["KIND_PARK"] != kindPark || found["KIND_WAITING"] != kindWaiting {
		t.Errorf("kinds %v", found)
	}
}

func TestKeysHaveNoHiddenPadding(t *testing.T) {
	for _, name := range []string{"goroutine_key", "address_key", "park", "running", "site_key", "site", "event"} {
		end := uint32(0)
		found := structOf(t, name)
		for _, member := range found.Members {
			if member.Offset.Bytes() != end {
				t.Errorf("%s: a hole before %s", name, member.Name)
			}
			size, err := btf.Sizeof(member.Type)
			if err != nil {
				t.Fatal(err)
			}
			end += uint32(size)
		}
		if end != found.Size {
			t.Errorf("%s: %d bytes of hidden padding", name, found.Size-end)
		}
	}
}

func TestCountersAndLossesAreNamed(t *testing.T) {
	counters, err := enumNames(objectTypes(t), "counter", "COUNTER_")
	if err != nil {
		t.Fatal(err)
	}
	losses, err := enumNames(objectTypes(t), "loss", "LOSS_")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int{"counters": len(counters), "losses": len(losses)} {
		if size := structOf(t, name).Size; size != uint32(8*want) {
			t.Errorf("struct %s has %d bytes for %d names", name, size, want)
		}
	}
	if counters[0] != "slow" || losses[0] != "ring_full" {
		t.Errorf("counters %v, losses %v", counters, losses)
	}
}
