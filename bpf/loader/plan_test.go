// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
)

const goodPlan = `{"schema": 2,
 "binary": {"name": "mutex", "sha256": "SUM", "go_version": "1.27.3", "pie": false, "stripped": false, "build_id": ""},
 "offsets": {"goid": {"value": 152, "source": "dwarf"}},
 "reasons": {"mutex": 22, "rwmutex_read": 23, "rwmutex_write": 24},
 "probes": [{"id": "park", "set": "mutex", "program": "go_park", "symbol": "runtime.gopark", "point": "pp", "address": 4831232, "offset": 636928},
            {"id": "cal.ret", "set": "calibration", "program": "cal_ret", "symbol": "f", "point": "ret", "address": 4831300, "offset": 636996},
            {"id": "cal.ret", "set": "calibration", "program": "cal_ret", "symbol": "f", "point": "ret", "address": 4831310, "offset": 637006}],
 "missing": []}`

func TestParsePlan(t *testing.T) {
	p, err := parsePlan([]byte(goodPlan))
	if err != nil {
		t.Fatal(err)
	}

	park, ok := p.byProgram("go_park")
	if !ok || park.Offset != 636928 || p.Offsets["goid"].Value != 152 || p.Reasons["rwmutex_write"] != 24 {
		t.Errorf("parsePlan = %+v", p)
	}
	// Two RETs of one function are one id, with one program.
	if got := programs(p.Probes); len(got) != 2 || got["cal.ret"] != "cal_ret" {
		t.Errorf("programs = %v", got)
	}
}

func TestParsePlanRefuses(t *testing.T) {
	for name, change := range map[string][2]string{
		"another schema":       {`"schema": 2`, `"schema": 1`},
		"no JSON":              {`{"schema"`, `"schema"`},
		"a uretprobe":          {`"point": "pp"`, `"point": "uretprobe"`},
		"no offset":            {`"offset": 636928`, `"offset": 0`},
		"two programs of one":  {`"program": "cal_ret", "symbol": "f", "point": "ret", "address": 4831310`, `"program": "cal_pp", "symbol": "f", "point": "ret", "address": 4831310`},
		"a required one gone":  {`"missing": []`, `"missing": [{"id": "x", "symbol": "y", "why": "inlined", "required": true}]`},
		"a reason beyond 255":  {`"mutex": 22`, `"mutex": 300`},
		"a probe without name": {`"id": "park"`, `"id": ""`},
	} {
		t.Run(name, func(t *testing.T) {
			changed := strings.Replace(goodPlan, change[0], change[1], 1)
			if changed == goodPlan {
				t.Fatal("the change changes nothing")
			}

			_, err := parsePlan([]byte(changed))

			var failed *failure
			if !errors.As(err, &failed) || failed.kind != kindPlan {
				t.Errorf("parsePlan = %v, want an error of kind %s", err, kindPlan)
			}
		})
	}
}

func TestCheckBinaryRefusesOtherBytes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &plan{Binary: planBinary{SHA256: "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"}}
	if err := p.checkBinary(path); err != nil {
		t.Errorf("the right bytes: %v", err)
	}
	if err := os.WriteFile(path, []byte("hello!"), 0o600); err != nil {
		t.Fatal(err)
	}

	err := p.checkBinary(path)

	if _, code := describe(err); code != exitCodes[kindPlan] {
		t.Errorf("checkBinary = %v", err)
	}
}

func TestSettingsAreWhatTheObjectHasNamesFor(t *testing.T) {
	p, err := parsePlan([]byte(goodPlan))
	if err != nil {
		t.Fatal(err)
	}
	p.Ranges = map[string]codeRange{"lock2": {Start: 16, End: 32}}
	p.Features = []string{"runs"}
	p.Recorded = []uint8{22, 63}
	object := &ebpf.CollectionSpec{Variables: map[string]*ebpf.VariableSpec{}}
	for _, name := range []string{"target_tgid", "goid_offset", "reason_rwmutex_read", "range_lock2_start", "want_runs", "recorded_reasons"} {
		object.Variables[name] = &ebpf.VariableSpec{}
	}

	values, err := planSettings(object, p, 77)

	want := settings{
		"target_tgid": uint32(77), "goid_offset": uint32(152), "reason_rwmutex_read": uint8(23), "range_lock2_start": uint64(16),
		"want_runs": uint8(1), "recorded_reasons": uint64(1)<<63 | 1<<22,
	}
	if err != nil || !maps.Equal(values, want) {
		t.Errorf("planSettings = %v, %v, want %v", values, err, want)
	}
}

func TestSettingsNeedGoid(t *testing.T) {
	p, err := parsePlan([]byte(goodPlan))
	if err != nil {
		t.Fatal(err)
	}
	delete(p.Offsets, "goid")

	if _, err := planSettings(&ebpf.CollectionSpec{}, p, 77); err == nil {
		t.Error("a plan without the offset of goid was taken: an id read at offset 0 is plausible and wrong")
	}
}

func TestAPlanWithAReasonThatHasNoBitIsRefused(t *testing.T) {
	var good map[string]any
	if err := json.Unmarshal([]byte(goodPlan), &good); err != nil {
		t.Fatal(err)
	}
	good["recorded"] = []int{64}
	text, err := json.Marshal(good)
	if err != nil {
		t.Fatal(err)
	}

	_, err = parsePlan(text)

	if _, code := describe(err); code != exitCodes[kindPlan] {
		t.Errorf("parsePlan = %v", err)
	}
}

func TestReasonsWithoutAWordKeepTheirNumber(t *testing.T) {
	p := &plan{WaitReasons: []string{"", "chan receive"}}

	if got := []string{p.reasonName(0), p.reasonName(1), p.reasonName(9)}; !slices.Equal(got, []string{"park:#0", "park:chan receive", "park:#9"}) {
		t.Errorf("names = %v", got)
	}
}
