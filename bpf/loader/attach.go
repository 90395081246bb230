// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io"
	"os"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// kernelPrefix begins the probe ids of programs on kernel events, which are the same for every binary.
const kernelPrefix = "kernel."

// kernelEvents gives the programs on kernel events that a plan asks for, by probe id.
func (p *plan) kernelEvents() map[string]string {
	result := map[string]string{}
	for _, event := range p.Kernel {
		result[kernelPrefix+event] = event
	}
	return result
}

// links are attached probes; closing them detaches.
type links []io.Closer

// Close detaches all at once: the kernel waits for a grace period of 50 to 100 ms for each, and these can overlap.
func (l links) Close() error {
	failed := make([]error, len(l))
	var group sync.WaitGroup
	for i, one := range l {
		group.Go(func() { failed[i] = one.Close() })
	}
	group.Wait()
	return errors.Join(failed...)
}

// attachProbes attaches to every process that maps the file, filtered by tgid in the programs: uprobes filtered by pid cost
// throughput, and early 6.6 filtered by thread.
func attachProbes(path string, probes []probe, programs *loaded) (links, error) {
	executable, err := link.OpenExecutable(path)
	if err != nil {
		return nil, fail(kindAttach, "open %s: %w", path, err)
	}
	var attached links
	for _, probe := range probes {
		// Address takes the offset within the file when no symbol is given.
		options := &link.UprobeOptions{Address: probe.Offset}
		one, err := executable.Uprobe("", programs.Programs[programKey(probe.ID)], options)
		if err != nil {
			attached.Close()
			return nil, fail(kindAttach, "attach %q to %s (%s) at offset %#x: %w", probe.ID, probe.Symbol, probe.Point, probe.Offset, err)
		}
		attached = append(attached, one)
	}
	return attached, nil
}

// attachKernel attaches the programs on kernel events.
func attachKernel(events map[string]string, programs *loaded) (links, error) {
	if err := mountTracefs(); err != nil {
		return nil, fail(kindAttach, "mount tracefs: %w", err)
	}
	var attached links
	for id, name := range events {
		one, err := attachKernelEvent(name, programs.Programs[programKey(id)])
		if err != nil {
			attached.Close()
			return nil, fail(kindAttach, "attach %q: %w", id, err)
		}
		attached = append(attached, one)
	}
	return attached, nil
}

func attachKernelEvent(name string, program *ebpf.Program) (io.Closer, error) {
	switch name {
	case "futex":
		return link.Tracepoint("syscalls", "sys_enter_futex", program, nil)
	case "syscall_enter":
		// A raw tracepoint has the name of its event, which is not that of the program.
		return link.AttachRawTracepoint(link.RawTracepointOptions{Name: "sys_enter", Program: program})
	default:
		return link.AttachRawTracepoint(link.RawTracepointOptions{Name: name, Program: program})
	}
}

// mountTracefs makes tracefs available where nothing has yet: the number of a tracepoint is read from it.
func mountTracefs() error {
	const path = "/sys/kernel/tracing"
	if _, err := os.Stat(path + "/events"); err == nil {
		return nil
	}
	if _, err := os.Stat("/sys/kernel/debug/tracing/events"); err == nil {
		return nil
	}
	err := unix.Mount("tracefs", path, "tracefs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	if errors.Is(err, unix.EBUSY) {
		return nil
	}
	return err
}
