// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain lets this test binary be the shim that startTarget runs.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == shimCommand {
		os.Exit(printFailure(os.Stderr, shim(os.Args[2:])))
	}
	os.Exit(m.Run())
}

func start(t *testing.T, limit int64, words ...string) (*target, *bytes.Buffer) {
	t.Helper()
	var stdout bytes.Buffer
	started, err := startTarget(words, &stdout, &bytes.Buffer{}, limit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(started.end)
	return started, &stdout
}

func TestTheTargetRunsOnlyWhenReleasedAndUnderTheSameID(t *testing.T) {
	marker := filepath.Join(t.TempDir(), "ran")
	target, stdout := start(t, 1000, "sh", "-c", "touch "+marker+"; echo $$")
	time.Sleep(50 * time.Millisecond)
	if _, err := os.Stat(marker); err == nil {
		t.Fatal("the target ran before it was released")
	}

	if err := target.release(); err != nil {
		t.Fatal(err)
	}
	<-target.done

	status, err := target.status()
	if status != 0 || err != nil {
		t.Errorf("status = %d, %v", status, err)
	}
	if got := strings.TrimSpace(stdout.String()); got == "" || got != strconv.Itoa(target.pid()) {
		t.Errorf("the target says it is process %q, the tracer knows it as %d", got, target.pid())
	}
}

func TestStatusTellsExitFromSignal(t *testing.T) {
	for script, want := range map[string]int{"exit 7": 7, "kill -SEGV $$": -11} {
		target, _ := start(t, 1000, "sh", "-c", script)
		if err := target.release(); err != nil {
			t.Fatal(err)
		}
		<-target.done

		if got, err := target.status(); got != want || err != nil {
			t.Errorf("%s: status = %d, %v, want %d", script, got, err, want)
		}
	}
}

func TestATargetThatWritesTooMuchIsKilled(t *testing.T) {
	target, stdout := start(t, 10, "sh", "-c", "while :; do echo 0123456789; done")
	if err := target.release(); err != nil {
		t.Fatal(err)
	}
	<-target.done

	if status, _ := target.status(); status != -9 || !target.over.Load() {
		t.Errorf("status = %d, over the limit: %v", status, target.over.Load())
	}
	if stdout.String() != "0123456789" {
		t.Errorf("kept %q", stdout.String())
	}
}

func TestEndTakesWhatTheTargetStartedWithIt(t *testing.T) {
	target, _ := start(t, 1000, "sh", "-c", "sleep 1000 & wait")
	if err := target.release(); err != nil {
		t.Fatal(err)
	}

	target.end()

	if status, _ := target.status(); status != -15 {
		t.Errorf("status = %d, want -15", status)
	}
}

func TestAMissingTargetIsAStartFailure(t *testing.T) {
	_, err := startTarget([]string{"/nowhere/program"}, &bytes.Buffer{}, &bytes.Buffer{}, 10)

	if _, code := describe(err); code != exitCodes[kindStart] {
		t.Errorf("startTarget = %v", err)
	}
}

func TestTracerAndTargetDoWithoutHugePages(t *testing.T) {
	if err := withoutHugePages(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Prctl(unix.PR_SET_THP_DISABLE, 0, 0, 0, 0); err != nil {
			t.Error(err)
		}
	})
	target, stdout := start(t, 1<<20, "cat", "/proc/self/status")

	if err := target.release(); err != nil {
		t.Fatal(err)
	}
	<-target.done

	if !strings.Contains(stdout.String(), "THP_enabled:\t0") {
		t.Errorf("the target may have huge pages: %s", stdout)
	}
}
