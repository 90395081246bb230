package labkit

import "math/bits"

// HistogramBits is how fine a Histogram is: each power of two of a value is cut into 2^5 buckets, so that a value is
// known to 1/32 of itself, about 3%. The layout is that of HdrHistogram (log-linear).
const HistogramBits = 5

const histogramBuckets = (64 - HistogramBits + 1) << HistogramBits

// Histogram counts values of any size in fixed room, without allocating. Histograms add up exactly, which percentiles do
// not: they are never averaged. Not to be used concurrently; each goroutine has its own and Merge puts them together.
type Histogram struct {
	counts [histogramBuckets]int64
}

// Record counts one value; a negative one counts as 0.
func (h *Histogram) Record(value int64) {
	if value < 0 {
		value = 0
	}
	h.counts[bucket(uint64(value))]++
}

// Merge adds the counts of other.
func (h *Histogram) Merge(other *Histogram) {
	for i, n := range other.counts {
		h.counts[i] += n
	}
}

// Count returns how many values were recorded.
func (h *Histogram) Count() int64 {
	total := int64(0)
	for _, n := range h.counts {
		total += n
	}
	return total
}

// buckets returns the counts that are not zero, by number of the bucket.
func (h *Histogram) buckets() map[int]int64 {
	found := map[int]int64{}
	for i, n := range h.counts {
		if n > 0 {
			found[i] = n
		}
	}
	return found
}

// bucket returns the number of the bucket that holds value: values below 2^5 have one each, then each power of two has 2^5.
func bucket(value uint64) int {
	power := bits.Len64(value) - HistogramBits - 1
	if power <= 0 {
		return int(value)
	}
	return power<<HistogramBits + int(value>>uint(power))
}

// bucketed is a histogram in the document.
type bucketed struct {
	Bits   int           `json:"bits"`
	Counts map[int]int64 `json:"counts"`
}

// Histogram puts h into the document under name, which has the unit in it; one that is there already is added to.
func (s *Segment) Histogram(name string, h *Histogram) {
	known, there := s.Histograms[name]
	if !there {
		known = bucketed{Bits: HistogramBits, Counts: map[int]int64{}}
	}
	for i, n := range h.buckets() {
		known.Counts[i] += n
	}
	s.Histograms[name] = known
}
