// Command gotrace summarises recordings of runtime/trace, segment by segment: labkit marks segments in the trace, and this cuts
// events to them. It reads traces of Go 1.21 to 1.27.
//
//	gotrace FILE...
//
// One JSON document goes to stdout (bpf/gotrace.py describes it). A file that cannot be read is told of in the document; the
// exit status is then 0 all the same. It is 2 for a wrong command line, 1 where nothing can be written.
package main

import (
	"encoding/json"
	"fmt"
	"os"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: gotrace FILE...")
		os.Exit(2)
	}
	summary := &Summary{Schema: schema, Traces: []*File{}, Segments: map[int]*Segment{}}
	for _, path := range os.Args[1:] {
		summary.add(path)
	}
	if err := json.NewEncoder(os.Stdout).Encode(summary); err != nil {
		fmt.Fprintln(os.Stderr, "gotrace:", err)
		os.Exit(1)
	}
}
