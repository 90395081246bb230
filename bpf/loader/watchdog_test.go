// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func TestAStuckTracerSaysWhereAndExits(t *testing.T) {
	var said bytes.Buffer
	code := make(chan int, 1)

	w := startWatchdog(50*time.Millisecond, &said, func(status int) { code <- status })
	w.enter("detaching")
	got := <-code

	lines := strings.Split(strings.TrimSpace(said.String()), "\n")
	var last report
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil {
		t.Fatal(err)
	}
	if got != exitCodes[kindInternal] || last.Error != kindInternal || !strings.Contains(last.Message, "while detaching") {
		t.Errorf("exit %d, report %+v", got, last)
	}
	if !strings.HasPrefix(lines[0], "goroutine ") {
		t.Errorf("no goroutines were told: %q", lines[0])
	}
}

func TestATracerThatIsDoneIsLeftAlone(t *testing.T) {
	var said bytes.Buffer

	w := startWatchdog(20*time.Millisecond, &said, func(int) { t.Error("exit was called") })
	w.stop()
	time.Sleep(60 * time.Millisecond)

	if said.Len() > 0 {
		t.Errorf("said %q", said.String())
	}
}
