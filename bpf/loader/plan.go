// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
)

const planSchema = 2

// plan is the probe plan as the host decided it. Fields that the loader does not use are left out.
type plan struct {
	Schema      int                  `json:"schema"`
	Binary      planBinary           `json:"binary"`
	Offsets     map[string]offset    `json:"offsets"`
	Reasons     map[string]uint8     `json:"reasons"`
	WaitReasons []string             `json:"wait_reasons"` // words of every wait reason, by number
	Recorded    []uint8              `json:"recorded"`     // wait reasons of which each wait becomes an event
	Ranges      map[string]codeRange `json:"ranges"`
	Kernel      []string             `json:"kernel"`   // programs on kernel events
	Features    []string             `json:"features"` // what programs do besides counting
	Probes      []probe              `json:"probes"`
	Missing     []missing            `json:"missing"`
}

// codeRange are linked addresses of a function, from Start to before End.
type codeRange struct {
	Start uint64 `json:"start"`
	End   uint64 `json:"end"`
}

type planBinary struct {
	Name      string `json:"name"`
	SHA256    string `json:"sha256"`
	GoVersion string `json:"go_version"`
	PIE       bool   `json:"pie"`
}

// offset of a field within its struct, bytes.
type offset struct {
	Value  uint32 `json:"value"`
	Source string `json:"source"`
}

// probe is one program at one place; places that share an ID (all RETs of a function) share a program and its count.
// Address is the linked virtual address, Offset the one within the file.
type probe struct {
	ID      string `json:"id"`
	Set     string `json:"set"`
	Program string `json:"program"`
	Symbol  string `json:"symbol"`
	Point   string `json:"point"`
	Address uint64 `json:"address"`
	Offset  uint64 `json:"offset"`
}

type missing struct {
	ID       string `json:"id"`
	Symbol   string `json:"symbol"`
	Why      string `json:"why"`
	Required bool   `json:"required"`
}

// readPlan reads and checks a plan.
func readPlan(path string) (*plan, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fail(kindPlan, "read the probe plan: %w", err)
	}
	return parsePlan(data)
}

func parsePlan(data []byte) (*plan, error) {
	var p plan
	if err := json.Unmarshal(data, &p); err != nil {
		return nil, fail(kindPlan, "the probe plan is not valid: %w", err)
	}
	if p.Schema != planSchema {
		return nil, fail(kindPlan, "the probe plan has schema %d, this loader knows %d", p.Schema, planSchema)
	}
	if len(p.Probes) == 0 {
		return nil, fail(kindPlan, "the probe plan has no probes")
	}
	programs := map[string]string{}
	for _, probe := range p.Probes {
		if err := probe.check(); err != nil {
			return nil, err
		}
		if program, ok := programs[probe.ID]; ok && program != probe.Program {
			return nil, fail(kindPlan, "probe %q has two programs, %s and %s", probe.ID, program, probe.Program)
		}
		programs[probe.ID] = probe.Program
	}
	for _, reason := range p.Recorded {
		if reason >= maxReasons {
			return nil, fail(kindPlan, "the wait reason %d is above %d, the last that the programs count", reason, maxReasons-1)
		}
	}
	for _, gone := range p.Missing {
		if gone.Required {
			return nil, fail(kindPlan, "the required probe %q is missing: %s", gone.ID, gone.Why)
		}
	}
	return &p, nil
}

func (p probe) check() error {
	switch {
	case p.ID == "" || p.Program == "":
		return fail(kindPlan, "a probe without id or program: %+v", p)
	case p.Offset == 0 || p.Address == 0:
		return fail(kindPlan, "probe %q has no offset or address", p.ID)
	case p.Point != "pp" && p.Point != "entry" && p.Point != "ret" && p.Point != "branch":
		// A uretprobe is not among them: it kills a Go program whose stack is copied.
		return fail(kindPlan, "probe %q has the unknown point %q", p.ID, p.Point)
	}
	return nil
}

// reasonName gives the name under which parks for a wait reason are counted.
func (p *plan) reasonName(number int) string {
	if number < len(p.WaitReasons) && p.WaitReasons[number] != "" {
		return "park:" + p.WaitReasons[number]
	}
	return fmt.Sprintf("park:#%d", number)
}

// programs gives the program of each probe id.
func programs(probes []probe) map[string]string {
	result := map[string]string{}
	for _, probe := range probes {
		result[probe.ID] = probe.Program
	}
	return result
}

// byProgram gives the first probe that runs a program.
func (p *plan) byProgram(program string) (probe, bool) {
	for _, probe := range p.Probes {
		if probe.Program == program {
			return probe, true
		}
	}
	return probe{}, false
}

// checkBinary refuses a plan that was made for other bytes: offsets into another binary would patch its code anywhere.
func (p *plan) checkBinary(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return fail(kindStart, "open the target: %w", err)
	}
	defer file.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		return fail(kindStart, "read the target: %w", err)
	}
	if got := hex.EncodeToString(hash.Sum(nil)); got != p.Binary.SHA256 {
		return fail(kindPlan, "the probe plan is for sha256 %s, but %s has %s", p.Binary.SHA256, path, got)
	}
	return nil
}
