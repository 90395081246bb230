package main

import (
	"os"
	"runtime"
	"runtime/metrics"
	"sync/atomic"
	"syscall"
	"time"

	"kmlab/labkit"
)

const (
	pairs      = 3
	busy       = 4
	doze       = time.Millisecond
	latencies  = "/sched/latencies:seconds"
	busySlice  = 20000
	multiplier = 6364136223846793005
)

// mixed runs loads of one kind each, for as long as asked, on all Ps. Nothing is expected of their numbers.
func (o *options) mixed(r *labkit.Run) error {
	for _, load := range []struct {
		name string
		run  func(stop *atomic.Bool, done *atomic.Int64) (start, end func() error)
	}{
		{"ping-pong", pingPongs}, {"cpu", spinners}, {"system calls", dozers}, {"netpoll", echoes},
	} {
		run := load.run
		c := scene{load.name, 0, func(s *labkit.Segment, _ int) error { return o.load(s, run) }}
		if err := c.play(r, "free", runtime.NumCPU()); err != nil {
			return err
		}
	}
	return nil
}

func (o *options) load(s *labkit.Segment, run func(*atomic.Bool, *atomic.Int64) (start, end func() error)) error {
	var stop atomic.Bool
	var done atomic.Int64
	before := runtime.NumGoroutine()
	start, end := run(&stop, &done)
	early := readLatencies()
	if err := start(); err != nil {
		return err
	}
	time.Sleep(*o.free)
	stop.Store(true)
	if err := end(); err != nil {
		return err
	}
	for runtime.NumGoroutine() > before {
		time.Sleep(glance)
	}
	s.Counts["operations"] = done.Load()
	late := readLatencies()
	for _, q := range []struct {
		name string
		at   float64
	}{{"sched_latency_p50_s", 0.5}, {"sched_latency_p99_s", 0.99}} {
		if value, n := quantile(early, late, q.at); n > 0 {
			s.Sample(q.name, value)
		}
	}
	return nil
}

func nothing() error { return nil }

// pingPongs: pairs of goroutines over unbuffered channels.
func pingPongs(stop *atomic.Bool, done *atomic.Int64) (start, end func() error) {
	return func() error {
		for i := 0; i < pairs; i++ {
			ping, pong := make(chan struct{}), make(chan struct{})
			go func() {
				for range ping {
					pong <- struct{}{}
				}
			}()
			go func() {
				for !stop.Load() {
					ping <- struct{}{}
					<-pong
					done.Add(1)
				}
				close(ping)
			}()
		}
		return nil
	}, nothing
}

// spinners: twice as many as there are CPUs, none of which ever gives way.
func spinners(stop *atomic.Bool, done *atomic.Int64) (start, end func() error) {
	return func() error {
		for i := 0; i < busy; i++ {
			go func() {
				for x := uint64(1); !stop.Load(); done.Add(1) {
					for i := 0; i < busySlice; i++ {
						x = x*multiplier + 1
					}
					sink.Store(x)
				}
			}()
		}
		return nil
	}, nothing
}

var sink atomic.Uint64

// dozers block their threads in the kernel for a millisecond each time.
func dozers(stop *atomic.Bool, done *atomic.Int64) (start, end func() error) {
	return func() error {
		for i := 0; i < busy; i++ {
			go func() {
				for !stop.Load() {
					nap(doze)
					done.Add(1)
				}
			}()
		}
		return nil
	}, nothing
}

// nap is nanosleep(2), which blocks the thread; time.Sleep would park the goroutine.
func nap(d time.Duration) {
	t := syscall.NsecToTimespec(d.Nanoseconds())
	for syscall.Nanosleep(&t, &t) == syscall.EINTR {
	}
}

// echoes: pairs of goroutines that send a byte to and fro over two pipes, so that each waits in the netpoller.
func echoes(stop *atomic.Bool, done *atomic.Int64) (start, end func() error) {
	var files []*os.File
	close := func() error {
		for _, f := range files {
			f.Close()
		}
		return nil
	}
	return func() error {
		for i := 0; i < pairs; i++ {
			r1, w1, err := os.Pipe()
			if err != nil {
				return err
			}
			r2, w2, err := os.Pipe()
			files = append(files, r1, w1)
			if err != nil {
				return err
			}
			files = append(files, r2, w2)
			go echo(r1, w2)
			go func() {
				var b [1]byte
				for !stop.Load() {
					if _, err := w1.Write(b[:]); err != nil {
						return
					}
					if _, err := r2.Read(b[:]); err != nil {
						return
					}
					done.Add(1)
				}
				w1.Close()
			}()
		}
		return nil
	}, close
}

// echo sends back each byte until there is no more.
func echo(in, out *os.File) {
	var b [1]byte
	for {
		if _, err := in.Read(b[:]); err != nil {
			return
		}
		if _, err := out.Write(b[:]); err != nil {
			return
		}
	}
}

func readLatencies() *metrics.Float64Histogram {
	sample := []metrics.Sample{{Name: latencies}}
	metrics.Read(sample)
	h := sample[0].Value.Float64Histogram()
	return &metrics.Float64Histogram{Counts: append([]uint64(nil), h.Counts...), Buckets: h.Buckets}
}

// quantile of what was added between two readings: the upper edge of its bucket, seconds, and how many there were. The runtime looks
// at one goroutine in eight (gTrackingPeriod in runtime/runtime2.go), so it is an estimate.
func quantile(early, late *metrics.Float64Histogram, p float64) (value float64, n uint64) {
	for i := range late.Counts {
		n += late.Counts[i] - early.Counts[i]
	}
	var sum uint64
	for i := range late.Counts {
		sum += late.Counts[i] - early.Counts[i]
		if n > 0 && float64(sum) >= p*float64(n) {
			return min(late.Buckets[i+1], late.Buckets[len(late.Buckets)-2]), n
		}
	}
	return 0, 0
}
