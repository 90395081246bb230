// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/rlimit"
)

// hitsMap is the map that every program counts its hits in; each probe gets a copy of its own.
const hitsMap = "probe_hits"

// settings are the constants of the object: what the plan and the target decide.
type settings map[string]any

// planSettings gives the constants of the object: each offset, reason, range and feature of the plan under the name that the
// object has for it (NAME_offset, reason_NAME, range_NAME_start, want_NAME); what no program reads is left out.
func planSettings(object *ebpf.CollectionSpec, p *plan, tgid int) (settings, error) {
	if _, ok := p.Offsets["goid"]; !ok {
		return nil, fail(kindPlan, "the probe plan has no offset of goid")
	}
	if _, ok := p.Reasons["mutex"]; !ok {
		return nil, fail(kindPlan, "the probe plan has no wait reason %q", "mutex")
	}
	all := settings{}
	for name, offset := range p.Offsets {
		all[name+"_offset"] = offset.Value
	}
	for name, reason := range p.Reasons {
		all["reason_"+name] = reason
	}
	for name, bounds := range p.Ranges {
		all["range_"+name+"_start"], all["range_"+name+"_end"] = bounds.Start, bounds.End
	}
	for _, name := range p.Features {
		all["want_"+name] = uint8(1)
	}
	if execute, ok := p.byProgram("go_execute"); ok {
		all["execute_address"] = execute.Address
	}
	known := settings{"target_tgid": uint32(tgid), "recorded_reasons": recordedMask(p.Recorded)}
	for name, value := range all {
		if _, ok := object.Variables[name]; ok {
			known[name] = value
		}
	}
	return known, nil
}

// recordedMask has a bit for each wait reason.
func recordedMask(reasons []uint8) uint64 {
	var mask uint64
	for _, reason := range reasons {
		mask |= 1 << reason
	}
	return mask
}

// loaded is a collection in the kernel, with each probe's program under "probe:ID".
type loaded struct {
	*ebpf.Collection
	wanted   map[string]string // program by probe id
	counters []string
	losses   []string
}

func programKey(probeID string) string { return "probe:" + probeID }
func hitsKey(probeID string) string    { return "hits:" + probeID }

// openObject reads an object file. Load may be called several times on what it returns.
func openObject(path string) (*ebpf.CollectionSpec, error) {
	spec, err := ebpf.LoadCollectionSpec(path)
	if err != nil {
		return nil, fail(kindLoad, "read the object: %w", err)
	}
	return spec, nil
}

// load puts a program for each probe id, with a hit counter of its own, into the kernel.
func load(object *ebpf.CollectionSpec, wanted map[string]string, values settings) (*loaded, error) {
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fail(kindLoad, "lift the limit on locked memory: %w", err)
	}
	counters, err := enumNames(object.Types, "counter", "COUNTER_")
	if err != nil {
		return nil, err
	}
	losses, err := enumNames(object.Types, "loss", "LOSS_")
	if err != nil {
		return nil, err
	}
	spec := object.Copy()
	if err := onePerProbe(spec, wanted); err != nil {
		return nil, err
	}
	for name, value := range values {
		variable, ok := spec.Variables[name]
		if !ok {
			return nil, fail(kindLoad, "the object has no constant %q", name)
		}
		if err := variable.Set(value); err != nil {
			return nil, fail(kindLoad, "set %s: %w", name, err)
		}
	}
	collection, err := ebpf.NewCollection(spec)
	if err != nil {
		return nil, fail(kindLoad, "load the programs: %w", err)
	}
	return &loaded{Collection: collection, wanted: wanted, counters: counters, losses: losses}, nil
}

// onePerProbe replaces the programs of a spec by a copy per probe that counts into its own map, and drops the maps that
// no program is left to use.
func onePerProbe(spec *ebpf.CollectionSpec, wanted map[string]string) error {
	programs := map[string]*ebpf.ProgramSpec{}
	used := map[string]bool{}
	for id, name := range wanted {
		original, ok := spec.Programs[name]
		if !ok {
			return fail(kindPlan, "probe %q wants the program %q, which the object does not have", id, name)
		}
		program := original.Copy()
		for i := range program.Instructions {
			reference := program.Instructions[i].Reference()
			if reference == hitsMap {
				reference = hitsKey(id)
				program.Instructions[i] = program.Instructions[i].WithReference(reference)
			}
			used[reference] = true
		}
		hits := spec.Maps[hitsMap].Copy()
		hits.Name = hitsMap
		spec.Maps[hitsKey(id)] = hits
		programs[programKey(id)] = program
	}
	spec.Programs = programs
	for name := range spec.Maps {
		if !used[name] && !strings.HasPrefix(name, ".") {
			delete(spec.Maps, name)
		}
	}
	return nil
}

// enumNames gives the names of an enum of the object in the order of their values, without prefix; the last one, the
// count of the others, has no prefix and is left out.
func enumNames(types *btf.Spec, name, prefix string) ([]string, error) {
	var enum *btf.Enum
	if err := types.TypeByName(name, &enum); err != nil {
		return nil, fail(kindLoad, "the object does not describe enum %s: %w", name, err)
	}
	names := make([]string, 0, len(enum.Values))
	for i, value := range enum.Values {
		short, ok := strings.CutPrefix(value.Name, prefix)
		if !ok {
			break
		}
		if value.Value != uint64(i) {
			return nil, fail(kindLoad, "enum %s is not numbered from 0 without gaps", name)
		}
		names = append(names, short)
	}
	return names, nil
}

// perCPU reads one entry of a per-CPU map of 64-bit counters and adds up the CPUs.
func perCPU(m *ebpf.Map, key uint32, fields int) ([]uint64, error) {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return nil, fmt.Errorf("number of CPUs: %w", err)
	}
	raw := make([][]byte, cpus)
	if err := m.Lookup(key, &raw); err != nil {
		return nil, fmt.Errorf("read %s: %w", m, err)
	}
	return addUp(raw, fields)
}

// addUp adds the counters of all CPUs, field by field.
func addUp(perCPU [][]byte, fields int) ([]uint64, error) {
	sum := make([]uint64, fields)
	for cpu, raw := range perCPU {
		if len(raw) != 8*fields {
			return nil, fmt.Errorf("%d bytes of CPU %d, expected %d counters", len(raw), cpu, fields)
		}
		for i := range sum {
			sum[i] += binary.LittleEndian.Uint64(raw[8*i:])
		}
	}
	return sum, nil
}

// segmentCounters reads the counters of all segments in which something was counted, parks by wait reason among them.
func (l *loaded) segmentCounters(p *plan) (map[string]map[string]uint64, error) {
	result := map[string]map[string]uint64{}
	table, reasons := l.Maps["segment_counters"], l.Maps["park_reasons"]
	for segment := range table.MaxEntries() {
		values, err := perCPU(table, segment, len(l.counters))
		if err != nil {
			return nil, err
		}
		if slices.Max(values) == 0 {
			continue
		}
		counters := named(l.counters, values)
		result[fmt.Sprint(segment)] = counters
		if reasons == nil {
			continue
		}
		parks, err := perCPU(reasons, segment, maxReasons)
		if err != nil {
			return nil, err
		}
		for number, count := range parks {
			if count > 0 {
				counters[p.reasonName(number)] = count
			}
		}
	}
	return result, nil
}

func (l *loaded) lossCounters() (map[string]uint64, error) {
	values, err := perCPU(l.Maps["loss_counters"], 0, len(l.losses))
	if err != nil {
		return nil, err
	}
	return named(l.losses, values), nil
}

// hits reads how often each probe was hit by the target.
func (l *loaded) hits() (map[string]uint64, error) {
	result := map[string]uint64{}
	for id := range l.wanted {
		values, err := perCPU(l.Maps[hitsKey(id)], 0, 1)
		if err != nil {
			return nil, err
		}
		result[id] = values[0]
	}
	return result, nil
}

// programStats are the kernel's own figures of one program of the object, over all probes that run it.
type programStats struct {
	RunNs    int64  `json:"run_ns"`
	RunCount uint64 `json:"run_count"`
	Missed   uint64 `json:"missed"`
}

// programStats reads run time and run count, which include hits by other processes, and the runs that the kernel left out
// because another program ran on that CPU (counted from 5.12).
func (l *loaded) programStats() (map[string]programStats, error) {
	result := map[string]programStats{}
	for id, name := range l.wanted {
		stats, err := l.Programs[programKey(id)].Stats()
		if err != nil {
			return nil, fmt.Errorf("statistics of %s: %w", name, err)
		}
		sum := result[name]
		sum.RunNs += stats.Runtime.Nanoseconds()
		sum.RunCount += stats.RunCount
		sum.Missed += stats.RecursionMisses
		result[name] = sum
	}
	return result, nil
}

func named(names []string, values []uint64) map[string]uint64 {
	result := make(map[string]uint64, len(names))
	for i, name := range names {
		result[name] = values[i]
	}
	return result
}
