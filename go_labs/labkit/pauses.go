package labkit

import "runtime/metrics"

// pauseMetrics are the names that the runtime's own histogram of its pauses for the collector has had: the second to Go 1.21.
var pauseMetrics = []string{"/sched/pauses/total/gc:seconds", "/gc/pauses:seconds"}

var pauses = firstKnown(pauseMetrics)

// firstKnown returns a sample of the first of names that this version knows.
func firstKnown(names []string) []metrics.Sample {
	for _, name := range names {
		sample := []metrics.Sample{{Name: name}}
		metrics.Read(sample)
		if sample[0].Value.Kind() == metrics.KindFloat64Histogram {
			return sample
		}
	}
	return nil
}

// Pauses returns how many times the world was stopped for the collector since the process began, by the runtime's own
// histogram; -1 where it has none. It allocates nothing (metrics.Read fills the histogram that is there), so that a forced
// section may call it. Not to be called concurrently.
func Pauses() int64 {
	if pauses == nil {
		return -1
	}
	metrics.Read(pauses)
	n := int64(0)
	for _, count := range pauses[0].Value.Float64Histogram().Counts {
		n += int64(count)
	}
	return n
}
