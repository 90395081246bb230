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

	kib, err := residentKiB(os.Getpid())

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
