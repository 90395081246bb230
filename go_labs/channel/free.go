package main

import (
	"runtime"
	"strconv"
	"sync/atomic"
	"time"

	"kmlab/labkit"
)

// last is what a producer sends for a consumer to end.
const last = -1

// load is one configuration of free use: as many producers as consumers on one channel.
type load struct {
	segment *labkit.Segment
	channel chan int
	pairs   int
}

// free measures each configuration in short repetitions, all configurations in one random order per repetition, so that a drift of the
// machine meets all of them alike.
func (o *options) free(r *labkit.Run) error {
	var loads []*load
	for _, pairs := range *o.goroutines {
		for _, buffer := range *o.buffers {
			s, err := r.Segment("free", map[string]string{"buffer": strconv.Itoa(buffer), "pairs": strconv.Itoa(pairs)})
			if err != nil {
				return err
			}
			l := &load{segment: s, channel: make(chan int, buffer), pairs: pairs}
			s.Addresses["channel"] = address(l.channel)
			loads = append(loads, l)
		}
	}
	for repetition := 0; repetition < *o.repetitions; repetition++ {
		for _, i := range r.Random.Perm(len(loads)) {
			if err := loads[i].repeat(*o.rep); err != nil {
				return err
			}
		}
	}
	runtime.KeepAlive(loads)
	return nil
}

// repeat runs the configuration once, for about d. Each value is one send and one receive, the last ones included, and each of
// them takes the channel's lock once; ns_per_value is wall time over all values.
func (l *load) repeat(d time.Duration) error {
	var stop atomic.Bool
	var done, sent, producing atomic.Int64
	producing.Store(int64(l.pairs))
	l.segment.Enter()
	begin := labkit.Monotonic()
	for i := 0; i < l.pairs; i++ {
		go func() {
			n := 0
			for ; !stop.Load(); n++ {
				l.channel <- n
			}
			sent.Add(int64(n))
			if producing.Add(-1) == 0 {
				for i := 0; i < l.pairs; i++ {
					l.channel <- last
				}
			}
			done.Add(1)
		}()
		go func() {
			for <-l.channel != last {
			}
			done.Add(1)
		}()
	}
	time.Sleep(d)
	stop.Store(true)
	err := labkit.AwaitCount(&done, 2*l.pairs)
	elapsed := labkit.Monotonic() - begin
	l.segment.Leave()
	l.record(sent.Load()+int64(l.pairs), elapsed)
	return err
}

func (l *load) record(values, elapsed int64) {
	s := l.segment
	s.Counts["values"] += values
	s.Counts["repetitions"]++
	s.Counts["elapsed_ns"] += elapsed
	s.Expected["chan_send"] += values
	s.Expected["chan_recv"] += values
	s.Expected["chan_lock"] += 2 * values
	s.Sample("ns_per_value", float64(elapsed)/float64(values))
}
