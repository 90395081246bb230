package labkit

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand"
	"os"
	"runtime"
	"runtime/metrics"
)

// MaxOutput bounds the document in bytes.
const MaxOutput = 16 << 20

// Run is one run of a workload: its options, its segments so far, and its source of random orders.
type Run struct {
	Lab     string
	Options *Options
	Random  *rand.Rand

	own        *Segment
	segments   []*Segment
	selfTest   []int64
	wait       [1]metrics.Sample
	recording  *recording
	recordings int
	recorded   int64 // bytes in files so far
	heap       *heapRecorder
}

type document struct {
	Schema     int                `json:"schema"`
	Lab        string             `json:"lab"`
	Go         string             `json:"go"`
	GoMaxProcs int                `json:"gomaxprocs"`
	SelfTest   identities         `json:"self_test"`
	Segments   []*Segment         `json:"segments"`
	Metrics    map[string]float64 `json:"metrics"`
	Profile    []ProfileEntry     `json:"profile"`
	Heap       []HeapEntry        `json:"heap"`
	LeftOut    int                `json:"heap_left_out"`
}

type identities struct {
	GoIDs []int64 `json:"goids"`
}

// Main is the main function of a workload: it parses the command line, runs the self-test and then body, and prints the
// document on stdout. An error goes to stderr and the process exits 1 (2 for a wrong command line); stdout then stays empty.
func Main(lab string, options *Options, body func(*Run) error) {
	describe := options.flags.Bool("describe", false, "print the lab's own options as JSON")
	if err := options.Parse(os.Args[1:]); err != nil {
		exit(lab, err, 2)
	}
	if *describe {
		if err := json.NewEncoder(os.Stdout).Encode(options.Declared()); err != nil {
			exit(lab, err, 1)
		}
		return
	}
	text, err := Execute(lab, options, body)
	if err == nil {
		_, err = io.Copy(os.Stdout, bytes.NewReader(text))
	}
	if err != nil {
		exit(lab, err, 1)
	}
}

// Execute runs a workload and returns its document.
func Execute(lab string, options *Options, body func(*Run) error) ([]byte, error) {
	run := &Run{Lab: lab, Options: options, Random: rand.New(rand.NewSource(options.Seed))}
	run.wait[0].Name = metricWait
	if options.Phase == "profiled" {
		defer runtime.SetMutexProfileFraction(runtime.SetMutexProfileFraction(1))
	}
	if options.keepsBlockProfile() {
		runtime.SetBlockProfileRate(1)
		defer runtime.SetBlockProfileRate(0)
	}
	if err := run.identify(); err != nil {
		return nil, fmt.Errorf("self-test: %w", err)
	}
	if err := body(run); err != nil {
		return nil, err
	}
	return run.document()
}

// Section is one part of a workload by the name that the options have for it.
type Section struct {
	Name string
	Run  func(*Run) error
}

// Sections runs those of a workload's sections that were asked for, in their order, up to the first error.
func (r *Run) Sections(all ...Section) error {
	for _, section := range all {
		if !r.Options.Has(section.Name) {
			continue
		}
		if err := section.Run(r); err != nil {
			return err
		}
	}
	return nil
}

func (r *Run) document() ([]byte, error) {
	d := document{
		Schema: 1, Lab: r.Lab, Go: runtime.Version(), GoMaxProcs: runtime.GOMAXPROCS(0), SelfTest: identities{r.selfTest},
		Segments: append([]*Segment{r.own}, r.segments...), Metrics: runtimeMetrics(), Profile: []ProfileEntry{},
	}
	d.Heap, d.LeftOut = r.heap.entries()
	if r.Options.Phase == "profiled" {
		d.Profile = profile()
	}
	text, err := json.Marshal(d)
	if err != nil {
		return nil, err
	}
	if len(text) > MaxOutput {
		return nil, fmt.Errorf("the document has %d bytes, more than %d; ask for less", len(text), MaxOutput)
	}
	return append(text, '\n'), nil
}

func exit(lab string, err error, status int) {
	if errors.Is(err, flag.ErrHelp) {
		err = errors.New("options are described in lab.toml; --describe prints them")
	}
	fmt.Fprintf(os.Stderr, "%s: %v\n", lab, err)
	os.Exit(status)
}
