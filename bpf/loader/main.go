// SPDX-License-Identifier: Apache-2.0

// Command labtrace attaches the programs that a probe plan names to a Go program, runs it to its end, and writes what the
// probes saw: trace.json and events.bin.
//
//	labtrace run --plan plan.json --objects FILE.o --out DIR [--timeout S] [--calibrate] [--max-output N] [--max-events N] -- CMD ARGS…
//	labtrace calibrate --plan calibration.json --objects FILE.o
//	labtrace version
//
// Results go to files or stdout; an error is one line of JSON on stderr, with an exit code for its kind (failure.go). The exit
// status of CMD is in trace.json: that a workload failed is no failure of the tracer.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"
)

const version = "1"

func init() {
	// The target is to die with this thread (PR_SET_PDEATHSIG), so main must stay on the first one.
	runtime.LockOSThread()
}

func main() {
	if err := dispatch(os.Args[1:]); err != nil {
		os.Exit(printFailure(os.Stderr, err))
	}
}

func dispatch(args []string) error {
	if len(args) == 0 {
		return fail(kindUsage, "a command is missing: run, calibrate or version")
	}
	switch command, rest := args[0], args[1:]; command {
	case "run":
		options, err := parseRun(rest)
		if err != nil {
			return err
		}
		return run(options)
	case "calibrate":
		return runCalibrate(rest)
	case "version":
		return printJSON(map[string]any{"version": version, "go": runtime.Version(), "plan_schema": planSchema, "trace_schema": traceSchema})
	case shimCommand:
		if len(rest) == 0 {
			return fail(kindUsage, "%s is for this program's own use", shimCommand)
		}
		return shim(rest)
	default:
		return fail(kindUsage, "unknown command %q: run, calibrate or version", command)
	}
}

func parseRun(args []string) (runOptions, error) {
	var options runOptions
	var seconds float64
	flags := flagSet("run")
	flags.StringVar(&options.plan, "plan", "", "probe plan of the command's binary")
	flags.StringVar(&options.objects, "objects", "", "object file with the programs")
	flags.StringVar(&options.out, "out", "", "folder for what comes")
	flags.Float64Var(&seconds, "timeout", 0, "seconds until the target is ended, 0 for never")
	flags.BoolVar(&options.calibrate, "calibrate", false, "measure the cost of a probe first")
	flags.StringVar(&options.calibration, "calibration", "", "plan of this program (calibration.json beside the plan)")
	flags.Int64Var(&options.maxOutput, "max-output", 64<<20, "bytes the target may write to each of stdout and stderr")
	flags.IntVar(&options.maxEvents, "max-events", 1_000_000, "records that events.bin may have; more are counted as left out")
	if err := flags.Parse(args); err != nil {
		return options, fail(kindUsage, "%w", err)
	}
	options.command = flags.Args()
	options.timeout = time.Duration(seconds * float64(time.Second))
	switch {
	case options.plan == "" || options.objects == "" || options.out == "":
		return options, fail(kindUsage, "--plan, --objects and --out are needed")
	case len(options.command) == 0:
		return options, fail(kindUsage, "the command to trace is missing")
	case !(seconds >= 0 && seconds < 1e9):
		return options, fail(kindUsage, "--timeout %v is no duration in seconds", seconds)
	case options.maxOutput < 0 || options.maxEvents < 0:
		return options, fail(kindUsage, "--max-output and --max-events must not be negative")
	}
	return options, nil
}

func runCalibrate(args []string) error {
	flags := flagSet("calibrate")
	planPath := flags.String("plan", "", "plan of this very program")
	objects := flags.String("objects", "", "object file with the programs")
	if err := flags.Parse(args); err != nil {
		return fail(kindUsage, "%w", err)
	}
	if *planPath == "" || *objects == "" || flags.NArg() > 0 {
		return fail(kindUsage, "--plan and --objects are needed, and nothing else")
	}
	p, err := readPlan(*planPath)
	if err != nil {
		return err
	}
	object, err := openObject(*objects)
	if err != nil {
		return err
	}
	result, err := calibrate(object, p)
	if err != nil {
		return err
	}
	return printJSON(result)
}

func flagSet(name string) *flag.FlagSet {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	return flags
}

func printJSON(value any) error {
	data, err := json.Marshal(value)
	if err != nil {
		return err
	}
	_, err = fmt.Println(string(data))
	return err
}
