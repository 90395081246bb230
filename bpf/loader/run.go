// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// gcPercent is how much the loader's heap may grow between collections; the runtime's least heap is 4 MiB × gcPercent / 100.
const gcPercent = 10

// runOptions are the options of labtrace run.
type runOptions struct {
	plan        string
	objects     string
	out         string
	timeout     time.Duration
	calibrate   bool
	calibration string
	maxOutput   int64
	maxEvents   int
	command     []string
}

// session is one traced run.
type session struct {
	options runOptions
	plan    *plan
	binary  string
	object  *ebpf.CollectionSpec
	trace   trace
	dog     *watchdog
}

// run traces one command. It returns an error when there is no trace, and also when there is one of a target that did not
// end by itself; the target's own exit status is in the trace and is no error here.
func run(options runOptions) error {
	if err := withoutHugePages(); err != nil {
		return fmt.Errorf("do without huge pages: %w", err)
	}
	s, err := prepare(options)
	if err != nil {
		return err
	}
	limit := options.timeout + ownTime
	if options.timeout == 0 {
		limit = math.MaxInt64
	}
	s.dog = startWatchdog(limit, os.Stderr, os.Exit)
	defer s.dog.stop()
	if options.calibrate {
		s.dog.enter("calibrating")
		if err := s.calibrate(); err != nil {
			return err
		}
	}
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer signal.Stop(interrupted)
	return s.record(interrupted)
}

func prepare(options runOptions) (*session, error) {
	p, err := readPlan(options.plan)
	if err != nil {
		return nil, err
	}
	binary, err := exec.LookPath(options.command[0])
	if err != nil {
		return nil, fail(kindStart, "find the target: %w", err)
	}
	if err := p.checkBinary(binary); err != nil {
		return nil, err
	}
	object, err := openObject(options.objects)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(options.out, 0o755); err != nil {
		return nil, fmt.Errorf("make the output folder: %w", err)
	}
	for _, name := range []string{"trace.json", "events.bin", "workload.json", "stderr"} {
		// What an earlier run left must not be taken for this one's.
		if err := os.Remove(filepath.Join(options.out, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("clear the output folder: %w", err)
		}
	}
	return &session{options: options, plan: p, binary: binary, object: object, trace: trace{Schema: traceSchema}}, nil
}

func (s *session) calibrate() error {
	start := time.Now()
	path := s.options.calibration
	if path == "" {
		path = filepath.Join(filepath.Dir(s.options.plan), "calibration.json")
	}
	p, err := readPlan(path)
	if err != nil {
		return err
	}
	s.trace.Cost, err = calibrate(s.object, p)
	s.trace.CalibrateSeconds = time.Since(start).Seconds()
	return err
}

// record starts the target, traces it to its end and writes what came.
func (s *session) record(interrupted <-chan os.Signal) error {
	stdout, err := createPartial(s.options.out, "workload.json")
	if err != nil {
		return err
	}
	defer stdout.discard()
	stderr, err := createPartial(s.options.out, "stderr")
	if err != nil {
		return err
	}
	defer stderr.discard()
	target, err := startTarget(s.options.command, stdout, stderr, s.options.maxOutput)
	if err != nil {
		return err
	}
	defer target.end()
	ended, err := s.observe(target, interrupted)
	if err != nil {
		return err
	}
	if err := errors.Join(stdout.commit(), stderr.commit(), writeTrace(s.options.out, &s.trace)); err != nil {
		return err
	}
	return ended
}

// observe loads, attaches, lets the target run and collects. The first error is why the target did not end by itself, with
// the trace whole as far as it goes; the second is why there is no trace.
func (s *session) observe(target *target, interrupted <-chan os.Signal) (ended, failed error) {
	events, err := createPartial(s.options.out, "events.bin")
	if err != nil {
		return nil, err
	}
	defer events.discard()
	if stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME); err == nil {
		defer stats.Close()
	}
	s.dog.enter("loading and attaching")
	programs, attached, err := s.install(target.pid())
	if err != nil {
		return nil, err
	}
	defer programs.Close()
	drain, err := startDrain(programs.Maps["events"], events, s.plan.Reasons["mutex"], s.options.maxEvents)
	if err != nil {
		return nil, errors.Join(err, attached.Close())
	}
	s.dog.enter("the target ran")
	ended, failed = s.watch(target, interrupted)
	s.dog.enter("collecting")
	// The target is gone, so nothing is counted any more: reading need not wait until all is detached.
	detached := make(chan error, 1)
	go func() { detached <- attached.Close() }()
	failed = errors.Join(failed, drain.finish())
	if failed == nil {
		failed = s.collect(target, programs, drain)
	}
	s.dog.enter("detaching")
	if failed = errors.Join(failed, <-detached); failed != nil {
		return nil, failed
	}
	return ended, events.commit()
}

// install loads and attaches everything for one process.
func (s *session) install(tgid int) (*loaded, links, error) {
	start := time.Now()
	values, err := planSettings(s.object, s.plan, tgid)
	if err != nil {
		return nil, nil, err
	}
	wanted := programs(s.plan.Probes)
	onKernelEvents := s.plan.kernelEvents()
	maps.Copy(wanted, onKernelEvents)
	programs, err := load(s.object, wanted, values)
	if err != nil {
		return nil, nil, err
	}
	s.trace.LoadSeconds = time.Since(start).Seconds()
	start = time.Now()
	onKernel, err := attachKernel(onKernelEvents, programs)
	if err != nil {
		programs.Close()
		return nil, nil, err
	}
	onTarget, err := attachProbes(s.binary, s.plan.Probes, programs)
	if err != nil {
		onKernel.Close()
		programs.Close()
		return nil, nil, err
	}
	s.trace.AttachSeconds = time.Since(start).Seconds()
	return programs, append(onKernel, onTarget...), nil
}

// watch lets the target go and waits for its end, the time-out or a signal.
func (s *session) watch(target *target, interrupted <-chan os.Signal) (ended, failed error) {
	var late <-chan time.Time
	if s.options.timeout > 0 {
		late = time.After(s.options.timeout)
	}
	// What loading needed is garbage now, and nearly nothing is allocated from here on, over hours perhaps: a heap that is
	// collected when it has grown by a tenth stays small.
	defer debug.SetGCPercent(debug.SetGCPercent(gcPercent))
	debug.FreeOSMemory()
	if err := target.release(); err != nil {
		return nil, err
	}
	memory := watchMemory(target.pid())
	defer func() { s.trace.Memory = memory.finish() }()
	select {
	case <-target.done:
	case <-late:
		ended = fail(kindTimeout, "the target ran longer than %s and was ended", s.options.timeout)
	case signal := <-interrupted:
		ended = fail(kindInterrupted, "%s: the target was ended", signal)
	}
	target.end()
	s.trace.TargetSeconds = time.Since(target.started).Seconds()
	if target.over.Load() {
		ended = fail(kindOutput, "the target wrote more than %d bytes and was ended", s.options.maxOutput)
	}
	s.trace.Complete = ended == nil
	if ended != nil {
		line, _ := describe(ended)
		s.trace.Ended = string(line.Error)
	}
	return ended, nil
}

// collect reads all maps into the trace.
func (s *session) collect(target *target, programs *loaded, drain *drain) error {
	t := &s.trace
	t.PID = target.pid()
	t.SelfTest.Goids = append([]uint64{}, drain.selfTest...)
	var failed [9]error
	t.ExitStatus, failed[0] = target.status()
	t.Counters, failed[1] = programs.segmentCounters(s.plan)
	t.Losses, failed[2] = programs.lossCounters()
	t.Hits, failed[3] = programs.hits()
	t.Programs, failed[4] = programs.programStats()
	t.LoadBias, failed[5] = s.loadBias(programs)
	t.Threads, failed[6] = entries(programs.Maps["threads"])
	t.Unfinished, failed[7] = drain.keepWaiting(programs.Maps["parked"])
	t.Sites, failed[8] = drain.sites(programs.Maps["alloc_sites"])
	t.Events = drain.events
	if err := errors.Join(failed[:]...); err != nil {
		return err
	}
	t.Losses["events_omitted"] = uint64(drain.omitted)
	var err error
	// Last, because what came before names stacks.
	t.Stacks, err = drain.stacks(programs.Maps["stacks"])
	t.countMissed()
	return err
}

// loadBias is how far the kernel moved the binary: where go_execute was hit, less where the plan has it.
func (s *session) loadBias(programs *loaded) (uint64, error) {
	probe, ok := s.plan.byProgram("go_execute")
	variable := programs.Variables["execute_ip"]
	if !ok || variable == nil {
		return 0, nil
	}
	var ip uint64
	if err := variable.Get(&ip); err != nil {
		return 0, fmt.Errorf("read execute_ip: %w", err)
	}
	if ip == 0 {
		return 0, nil
	}
	bias := ip - probe.Address
	if bias%uint64(os.Getpagesize()) != 0 || (bias != 0 && !s.plan.Binary.PIE) {
		return 0, fail(kindPlan, "go_execute ran at %#x, which does not fit the planned address %#x", ip, probe.Address)
	}
	return bias, nil
}

// entries counts the entries of a map.
func entries(m *ebpf.Map) (int, error) {
	if m == nil {
		return 0, nil
	}
	count := 0
	key, value := make([]byte, m.KeySize()), make([]byte, m.ValueSize())
	iterator := m.Iterate()
	for iterator.Next(&key, &value) {
		count++
	}
	return count, iterator.Err()
}
