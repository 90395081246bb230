// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
)

// drainEvery is how often the ring buffer is emptied. It holds about 300 000 events, so this is enough for millions a second.
const drainEvery = 50 * time.Millisecond

// drain moves events from the ring buffer to events.bin while the target runs.
type drain struct {
	reader *ringbuf.Reader
	out    *bufio.Writer
	stop   chan struct{}
	done   chan error

	limit    int // records that events.bin may have
	events   int
	omitted  int // records beyond it
	mutex    uint8
	selfTest []uint64
	index    map[uint64]int32 // stack key → index
	keys     []uint64
	buffer   []byte
	record   ringbuf.Record // reused: one of its own for each look would be garbage, 2 KiB a second
}

// startDrain begins; mutex is the wait reason of the self-test's parks, limit how many records are kept.
func startDrain(ring *ebpf.Map, out io.Writer, mutex uint8, limit int) (*drain, error) {
	reader, err := ringbuf.NewReader(ring)
	if err != nil {
		return nil, fail(kindLoad, "open the ring buffer: %w", err)
	}
	d := &drain{
		reader: reader, out: bufio.NewWriterSize(out, 1<<18),
		stop: make(chan struct{}), done: make(chan error, 1), index: map[uint64]int32{}, mutex: mutex, limit: limit,
	}
	go func() { d.done <- d.loop() }()
	return d, nil
}

func (d *drain) loop() error {
	tick := time.NewTicker(drainEvery)
	defer tick.Stop()
	for {
		last := false
		select {
		case <-tick.C:
		case <-d.stop:
			last = true
		}
		if err := d.empty(); err != nil {
			return err
		}
		if last {
			return d.out.Flush()
		}
	}
}

// empty reads what is there and does not wait.
func (d *drain) empty() error {
	d.reader.SetDeadline(time.Unix(0, 1))
	for d.reader.AvailableBytes() > 0 {
		err := d.reader.ReadInto(&d.record)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the ring buffer: %w", err)
		}
		event, ok := decodeEvent(d.record.RawSample)
		if !ok {
			return fmt.Errorf("an event of %d bytes, expected %d", len(d.record.RawSample), ringEventSize)
		}
		if err := d.keep(event); err != nil {
			return err
		}
	}
	return nil
}

func (d *drain) keep(e event) error {
	if e.Segment == selfTestSegment && e.Kind == kindPark && e.Reason == d.mutex {
		d.selfTest = append(d.selfTest, e.Goid)
	}
	if d.events >= d.limit {
		d.omitted++
		return nil
	}
	d.buffer = appendEvent(d.buffer[:0], e, d.stackIndex(e.Stack))
	if _, err := d.out.Write(d.buffer); err != nil {
		return fmt.Errorf("write events.bin: %w", err)
	}
	d.events++
	return nil
}

// keepWaiting adds a record for each recorded park that nothing ended, and gives their number. Only after finish.
func (d *drain) keepWaiting(parked *ebpf.Map) (int, error) {
	if parked == nil {
		return 0, nil
	}
	var key goroutineKey
	var park parkState
	count := 0
	entries := parked.Iterate()
	for entries.Next(&key, &park) {
		count++
		err := d.keep(event{
			StartNs: park.StartNs, Address: park.Address, Goid: key.Goid, Stack: park.Stack, Segment: park.Segment,
			Kind: kindWaiting, Reason: park.Reason,
		})
		if err != nil {
			return 0, err
		}
	}
	return count, errors.Join(entries.Err(), d.out.Flush())
}

// site is one place that allocates, in one segment.
type site struct {
	Segment uint32 `json:"segment"`
	Stack   int32  `json:"stack"`
	Count   uint64 `json:"count"`
	Bytes   uint64 `json:"bytes"`
}

// sites reads what was allocated where.
func (d *drain) sites(table *ebpf.Map) ([]site, error) {
	result := []site{}
	if table == nil {
		return result, nil
	}
	var key siteKey
	var value siteValue
	entries := table.Iterate()
	for entries.Next(&key, &value) {
		result = append(result, site{Segment: key.Segment, Stack: d.stackIndex(key.Stack), Count: value.Count, Bytes: value.Bytes})
	}
	return result, entries.Err()
}

func (d *drain) stackIndex(key uint64) int32 {
	if key == 0 {
		return -1
	}
	index, ok := d.index[key]
	if !ok {
		index = int32(len(d.keys))
		d.index[key] = index
		d.keys = append(d.keys, key)
	}
	return index
}

// finish reads the rest and stops. The target must have ended and the probes must be detached.
func (d *drain) finish() error {
	close(d.stop)
	err := <-d.done
	return errors.Join(err, d.reader.Close())
}

// stacks gives the stacks that the events name, in the order of their indexes.
func (d *drain) stacks(table *ebpf.Map) ([][]uint64, error) {
	result := make([][]uint64, 0, len(d.keys))
	for _, key := range d.keys {
		var record stackRecord
		if err := table.Lookup(key, &record); err != nil {
			return nil, fmt.Errorf("read a stack: %w", err)
		}
		result = append(result, slices.Clone(record.IP[:min(record.Depth, maxFrames)]))
	}
	return result, nil
}
