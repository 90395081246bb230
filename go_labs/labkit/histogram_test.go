package labkit

import (
	"encoding/json"
	"math"
	"testing"
)

func TestSmallValuesHaveABucketEach(t *testing.T) {
	for value := uint64(0); value < 64; value++ {
		if got := bucket(value); got != int(value) {
			t.Errorf("bucket(%d) = %d", value, got)
		}
	}
}

func TestEachPowerOfTwoHasThirtyTwoBuckets(t *testing.T) {
	for power := 6; power < 64; power++ {
		low := uint64(1) << uint(power)
		if got := bucket(low) - bucket(low-1); got != 1 {
			t.Errorf("2^%d lies %d buckets above its predecessor", power, got)
		}
		if got := bucket(low+low>>1) - bucket(low); got != 16 {
			t.Errorf("from 2^%d to half above it are %d buckets", power, got)
		}
	}
	if last := bucket(math.MaxUint64); last != histogramBuckets-1 {
		t.Errorf("the largest value is in bucket %d of %d", last, histogramBuckets)
	}
}

func TestMergedHistogramsHoldWhatBothRecorded(t *testing.T) {
	var one, two, both Histogram
	for value := int64(0); value < 100000; value += 7 {
		both.Record(value)
		if value%2 == 0 {
			one.Record(value)
		} else {
			two.Record(value)
		}
	}

	one.Merge(&two)

	if one != both || one.Count() != 14286 {
		t.Errorf("merged: %d values, together: %d", one.Count(), both.Count())
	}
}

func TestAHistogramOfASegmentIsAddedTo(t *testing.T) {
	s := newSegment(&Run{}, 1, "free", nil)
	var h Histogram
	h.Record(-5)
	h.Record(1000)

	s.Histogram("latency_ns", &h)
	s.Histogram("latency_ns", &h)

	text, err := json.Marshal(s.Histograms)
	if want := `{"latency_ns":{"bits":5,"counts":{"0":2,"190":2}}}`; err != nil || string(text) != want {
		t.Errorf("%s, %v; want %s", text, err, want)
	}
}

func TestRecordingDoesNotAllocate(t *testing.T) {
	var h Histogram

	if n := testing.AllocsPerRun(100, func() { h.Record(123456789) }); n != 0 {
		t.Errorf("%v allocations for each value", n)
	}
}
