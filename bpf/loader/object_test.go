// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

func programUsing(maps ...string) *ebpf.ProgramSpec {
	var code asm.Instructions
	for _, name := range maps {
		code = append(code, asm.LoadMapPtr(asm.R1, 0).WithReference(name))
	}
	return &ebpf.ProgramSpec{Type: ebpf.Kprobe, Instructions: append(code, asm.Mov.Imm(asm.R0, 0), asm.Return())}
}

func TestOnePerProbeGivesEachProbeACounterOfItsOwn(t *testing.T) {
	spec := &ebpf.CollectionSpec{
		Programs: map[string]*ebpf.ProgramSpec{
			"go_park": programUsing(hitsMap, "events"), "go_mark": programUsing(hitsMap), "unused": programUsing("other"),
		},
		Maps: map[string]*ebpf.MapSpec{hitsMap: {}, "events": {}, "other": {}, ".rodata": {}},
	}

	err := onePerProbe(spec, map[string]string{"a": "go_park", "b": "go_park"})

	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"a", "b"} {
		references := spec.Programs[programKey(id)].Instructions.ReferenceOffsets()
		if len(references[hitsKey(id)]) != 1 || len(references["events"]) != 1 || len(references[hitsMap]) != 0 {
			t.Errorf("program of %q refers to %v", id, references)
		}
	}
	var maps []string
	for name := range spec.Maps {
		maps = append(maps, name)
	}
	slices.Sort(maps)
	if want := []string{".rodata", "events", hitsKey("a"), hitsKey("b")}; !slices.Equal(maps, want) {
		t.Errorf("maps = %v, want %v", maps, want)
	}
	if len(spec.Programs) != 2 {
		t.Errorf("%d programs, want 2", len(spec.Programs))
	}
}

func TestOnePerProbeRefusesAnUnknownProgram(t *testing.T) {
	spec := &ebpf.CollectionSpec{Programs: map[string]*ebpf.ProgramSpec{}, Maps: map[string]*ebpf.MapSpec{hitsMap: {}}}

	err := onePerProbe(spec, map[string]string{"a": "go_nothing"})

	if _, code := describe(err); code != exitCodes[kindPlan] {
		t.Errorf("onePerProbe = %v", err)
	}
}

func TestAddUpAddsTheCPUs(t *testing.T) {
	first := []byte{1, 0, 0, 0, 0, 0, 0, 0, 0xff, 0, 0, 0, 0, 0, 0, 0}
	second := []byte{2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0}

	sum, err := addUp([][]byte{first, second}, 2)

	if err != nil || !slices.Equal(sum, []uint64{3, 256}) {
		t.Errorf("addUp = %v, %v", sum, err)
	}
	if _, err := addUp([][]byte{first}, 3); err == nil {
		t.Error("a value of two counters was read as three")
	}
}

func TestMissedRunsOfUprobesAreLosses(t *testing.T) {
	tr := &trace{
		Losses:   map[string]uint64{"ring_full": 1},
		Programs: map[string]programStats{"go_park": {Missed: 2}, "go_execute": {Missed: 1}, "futex": {Missed: 5}},
	}

	tr.countMissed()

	if tr.Losses["missed"] != 3 || tr.MissedKernelEvents != 5 {
		t.Errorf("missed = %d, kernel events %d", tr.Losses["missed"], tr.MissedKernelEvents)
	}
}

func TestDescribeGivesTheVerifiersWords(t *testing.T) {
	refused := &ebpf.VerifierError{Cause: errors.New("permission denied"), Log: []string{"R1 type=scalar expected=fp"}}

	line, code := describe(fail(kindLoad, "load the programs: %w", refused))

	if code != 3 || line.Error != kindLoad || !slices.Equal(line.VerifierLog, refused.Log) {
		t.Errorf("describe = %+v, %d", line, code)
	}
}

func TestDescribeCallsAnUnknownErrorInternal(t *testing.T) {
	line, code := describe(errors.New("disk on fire"))

	if code != 1 || line.Error != kindInternal || line.Message != "disk on fire" {
		t.Errorf("describe = %+v, %d", line, code)
	}
}
