package labkit

import (
	"runtime"
	"strings"
)

// KeepBlockProfile asks for Go's own block profile, each blocking event of it (rate 1), in the profiled phase. Every segment then has
// block_chan_send, block_chan_receive, block_select and block_other: how many waits of each kind ended during it. Waits that
// never end are not in that profile.
func (o *Options) KeepBlockProfile() {
	o.blocking = true
}

func (o *Options) keepsBlockProfile() bool {
	return o.blocking && o.Phase == "profiled"
}

// blockKinds are the names of counts by the runtime's function that blocked, without a digit at its end: chanrecv2 is chanrecv1
// with a second result.
var blockKinds = map[string]string{
	"runtime.chansend": "block_chan_send", "runtime.chanrecv": "block_chan_receive", "runtime.selectgo": "block_select",
}

const otherBlocks = "block_other"

// readBlocks returns how many blocking events Go's profile has, by kind; nil where it is not kept.
func (r *Run) readBlocks() map[string]int64 {
	if !r.Options.keepsBlockProfile() {
		return nil
	}
	counts := map[string]int64{otherBlocks: 0}
	for _, name := range blockKinds {
		counts[name] = 0
	}
	for _, record := range blockRecords() {
		counts[blockKind(functions(record.Stack()))] += record.Count
	}
	return counts
}

func blockRecords() []runtime.BlockProfileRecord {
	records := make([]runtime.BlockProfileRecord, 256)
	n, ok := runtime.BlockProfile(records)
	for !ok {
		records = make([]runtime.BlockProfileRecord, 2*n)
		n, ok = runtime.BlockProfile(records)
	}
	return records[:n]
}

// blockKind tells the kind of a blocking event from its stack, innermost function first.
func blockKind(stack []string) string {
	if len(stack) > 0 {
		if name, known := blockKinds[strings.TrimRight(stack[0], "0123456789")]; known {
			return name
		}
	}
	return otherBlocks
}
