// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// shimCommand is the hidden command as which this program holds the target's place until the probes are attached.
const shimCommand = "__hold"

// killAfter is how long a target gets between SIGTERM and SIGKILL, and how long its output may outlive it.
const killAfter = 2 * time.Second

// shim waits for one byte on descriptor 3 and then becomes the target: its process id is known, and the probes attached,
// before the first instruction of the target runs.
func shim(command []string) error {
	gate := os.NewFile(3, "gate")
	if n, err := gate.Read(make([]byte, 1)); n != 1 {
		return fail(kindStart, "the tracer ended before it let the target go: %w", err)
	}
	gate.Close()
	err := syscall.Exec(command[0], command, os.Environ())
	return fail(kindStart, "execute %s: %w", command[0], err)
}

// withoutHugePages keeps the kernel from putting huge pages below this process and, over the exec, below the target (prctl(2)). Left alone,
// khugepaged makes 2 MiB of any few pages that lie together (Documentation/admin-guide/mm/transhuge.rst), minutes after they were first
// used: a memory that is flat seems to grow. And while a huge page is put together or split, what lies in it is not there for a moment; the
// target waits for it in a page fault, but a BPF program that reads the target's stack must not, and counts a loss (seen on 5.10).
func withoutHugePages() error {
	return unix.Prctl(unix.PR_SET_THP_DISABLE, 1, 0, 0, 0)
}

// target is the traced process.
type target struct {
	command *exec.Cmd
	gate    *os.File
	started time.Time
	done    chan struct{} // closed when the process has ended and its output is written
	waitErr error
	over    *atomic.Bool // more output than allowed
	once    sync.Once
}

// startTarget starts the command, held before its first instruction. The caller's thread must be the main one, locked: the
// kernel ends the target when that thread ends, so that a tracer killed with SIGKILL leaves nothing running.
func startTarget(words []string, stdout, stderr io.Writer, limit int64) (*target, error) {
	path, err := exec.LookPath(words[0])
	if err != nil {
		return nil, fail(kindStart, "find the target: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fail(kindInternal, "find this program: %w", err)
	}
	hold, gate, err := os.Pipe()
	if err != nil {
		return nil, fail(kindInternal, "make a pipe: %w", err)
	}
	defer hold.Close()
	t := &target{gate: gate, done: make(chan struct{}), over: &atomic.Bool{}}
	t.command = exec.Command(self, append([]string{shimCommand, path}, words[1:]...)...)
	t.command.Stdout = &bounded{out: stdout, left: limit, target: t}
	t.command.Stderr = &bounded{out: stderr, left: limit, target: t}
	t.command.ExtraFiles = []*os.File{hold}
	t.command.WaitDelay = killAfter
	t.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := t.command.Start(); err != nil {
		gate.Close()
		return nil, fail(kindStart, "start the target: %w", err)
	}
	go func() {
		t.waitErr = t.command.Wait()
		close(t.done)
	}()
	return t, nil
}

func (t *target) pid() int { return t.command.Process.Pid }

// release lets the target run.
func (t *target) release() error {
	defer t.gate.Close()
	t.started = time.Now()
	if _, err := t.gate.Write([]byte{1}); err != nil {
		return fail(kindStart, "let the target go: %w", err)
	}
	return nil
}

// end ends the target and what it started: SIGTERM to its process group, SIGKILL after a while.
func (t *target) end() {
	t.once.Do(func() {
		t.gate.Close()
		t.signal(unix.SIGTERM)
		select {
		case <-t.done:
		case <-time.After(killAfter):
		}
		t.signal(unix.SIGKILL)
	})
	<-t.done
}

func (t *target) signal(signal unix.Signal) {
	// The group may be gone already, which is what is wanted.
	_ = unix.Kill(-t.pid(), signal)
}

// status is the exit status, negative for the signal that ended the process. Only after done.
func (t *target) status() (int, error) {
	state := t.command.ProcessState
	if state == nil {
		return 0, fail(kindStart, "wait for the target: %w", t.waitErr)
	}
	status, ok := state.Sys().(syscall.WaitStatus)
	if ok && status.Signaled() {
		return -int(status.Signal()), nil
	}
	var exited *exec.ExitError
	if t.waitErr != nil && !errors.As(t.waitErr, &exited) && !errors.Is(t.waitErr, exec.ErrWaitDelay) {
		return state.ExitCode(), fail(kindInternal, "keep the target's output: %w", t.waitErr)
	}
	return state.ExitCode(), nil
}

// bounded passes on what fits into a limit, then drops the rest and has the target killed.
type bounded struct {
	out    io.Writer
	left   int64
	target *target
}

func (b *bounded) Write(data []byte) (int, error) {
	size := len(data)
	if int64(size) > b.left {
		data = data[:b.left]
		if b.target.over.CompareAndSwap(false, true) {
			b.target.signal(unix.SIGKILL)
		}
	}
	n, err := b.out.Write(data)
	b.left -= int64(n)
	if err != nil {
		return n, err
	}
	return size, nil
}
