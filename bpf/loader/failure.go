// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/cilium/ebpf"
)

// kind names what went wrong; each has one exit code.
type kind string

const (
	kindInternal    kind = "internal"      // 1: a defect, or a file that could not be written
	kindUsage       kind = "usage"         // 2: arguments
	kindLoad        kind = "load_refused"  // 3: the kernel or the library refused a program or a map
	kindAttach      kind = "attach_failed" // 4: a probe could not be attached
	kindStart       kind = "start_failed"  // 5: the target could not be started
	kindTimeout     kind = "timeout"       // 6: the target ran longer than --timeout and was ended
	kindOutput      kind = "output_limit"  // 7: the target wrote more than --max-output and was ended
	kindInterrupted kind = "interrupted"   // 8: SIGINT or SIGTERM; the target was ended
	kindPlan        kind = "bad_plan"      // 9: the plan is broken, or not that of this binary
	kindCalibrate   kind = "calibration"   // 10: the cost of a probe could not be measured
)

var exitCodes = map[kind]int{
	kindInternal: 1, kindUsage: 2, kindLoad: 3, kindAttach: 4, kindStart: 5, kindTimeout: 6, kindOutput: 7,
	kindInterrupted: 8, kindPlan: 9, kindCalibrate: 10,
}

// failure is an error with its kind. Every error that leaves a command is one.
type failure struct {
	kind kind
	err  error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

func fail(k kind, format string, args ...any) error {
	return &failure{kind: k, err: fmt.Errorf(format, args...)}
}

// report is the line that a failed command leaves on stderr.
type report struct {
	Error       kind     `json:"error"`
	Message     string   `json:"message"`
	VerifierLog []string `json:"verifier_log,omitempty"`
}

// describe turns an error into its report and exit code.
func describe(err error) (report, int) {
	failed := &failure{kind: kindInternal, err: err}
	errors.As(err, &failed)
	result := report{Error: failed.kind, Message: err.Error()}
	var refused *ebpf.VerifierError
	if errors.As(err, &refused) {
		result.VerifierLog = refused.Log
	}
	return result, exitCodes[failed.kind]
}

// printFailure writes the report as one line of JSON and gives the exit code.
func printFailure(stderr io.Writer, err error) int {
	line, code := describe(err)
	if encodeErr := json.NewEncoder(stderr).Encode(line); encodeErr != nil {
		return exitCodes[kindInternal]
	}
	return code
}
