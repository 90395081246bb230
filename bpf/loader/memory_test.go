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

	statm, err := openStatm(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer statm.Close()

	kib, err := residentKiB(statm, make([]byte, 128))

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

func TestASampleAllocatesNothing(t *testing.T) {
	statm, err := openStatm(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer statm.Close()
	text := make([]byte, 128)

	allocations := testing.AllocsPerRun(100, func() {
		if _, err := residentKiB(statm, text); err != nil {
			t.Error(err)
		}
	})

	if allocations != 0 {
		t.Errorf("%v allocations for each sample", allocations)
	}
}

func TestAFileThatIsNoStatmIsAnError(t *testing.T) {
	file, err := os.Create(t.TempDir() + "/statm")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, text := range []string{"", "1", "1 x 3"} {
		if err := os.WriteFile(file.Name(), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}

		if kib, err := residentKiB(file, make([]byte, 128)); err == nil {
			t.Errorf("residentKiB of %q = %d", text, kib)
		}
	}
}
