// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"testing"
)

func TestResidentIsWhatThisProcessHolds(t *testing.T) {
	held := make([]byte, 32<<20)
	for i := range held {
		held[i] = 1
	}

	kib, err := residentKiB(rollup(os.Getpid()), make([]byte, 2048))

	if err != nil || kib < 32<<10 {
		t.Errorf("residentKiB = %d, %v with %d MiB in use", kib, err, len(held)>>20)
	}
}

func TestThinKeepsEverySecondSample(t *testing.T) {
	samples := []memorySample{{Seconds: 0}, {Seconds: 1}, {Seconds: 2}, {Seconds: 3}, {Seconds: 4}}

	kept := thin(samples)

	if len(kept) != 3 || kept[1].Seconds != 2 || kept[2].Seconds != 4 {
		t.Errorf("thin = %v", kept)
	}
}

func TestAWatchOfAProcessThatIsGoneIsEmptyAndEnds(t *testing.T) {
	if got := watchMemory(1 << 30).finish(); got == nil || len(got) != 0 {
		t.Errorf("finish = %v", got)
	}
}

func TestASampleAllocatesNoMoreThanThePathForTheKernel(t *testing.T) {
	path, text := rollup(os.Getpid()), make([]byte, 2048)

	allocations := testing.AllocsPerRun(100, func() {
		if _, err := residentKiB(path, text); err != nil {
			t.Error(err)
		}
	})

	if allocations > 1 {
		t.Errorf("%v allocations for each sample", allocations)
	}
}

func TestWhatIsNoRollupIsAnError(t *testing.T) {
	head := "55d0-7ffe ---p 00000000 00:00 0 [rollup]"
	for text, want := range map[string]int64{
		"": -1, head: -1, head + "\nRss: kB\n": -1, head + "\nRss:   12x4 kB\n": -1, head + "\nRss:    1234 kB\nPss:  1 kB\n": 1234,
	} {
		kib, err := parseRollup([]byte(text))
		if (want < 0) != (err != nil) || (want >= 0 && kib != want) {
			t.Errorf("parseRollup(%q) = %d, %v", text, kib, err)
		}
	}
}
