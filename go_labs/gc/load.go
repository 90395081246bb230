package main

import (
	"errors"
	"math/rand"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"

	"kmlab/labkit"
)

const chapters = 32

// ballast is what the service holds besides: the collector has to look at it in each collection. 64 bytes with a pointer.
type leaf struct {
	parent *leaf
	_      [56]byte
}

// shelf returns mib MiB of live objects that point at each other.
func shelf(mib int) []*leaf {
	leaves := make([]*leaf, mib<<20/64)
	for i := range leaves {
		leaves[i] = &leaf{parent: leaves[i/2]}
	}
	return leaves
}

// load offers the renderer requests at fixed rates, with the pool misused and used well, on the same schedule of arrivals.
func (o *options) load(r *labkit.Run) error {
	book := newBook(rand.New(rand.NewSource(r.Options.Seed)), chapters, *o.chapter)
	library := shelf(*o.library)
	for _, rate := range *o.rates {
		schedule := arrivals(r.Random, rate, *o.window)
		if len(schedule) == 0 {
			return errors.New("no request falls into a window of " + o.window.String() + " at " + strconv.Itoa(rate) + " requests/s; give more of either")
		}
		uses := []use{{"misused", (*Book).Misused}, {"used well", (*Book).UsedWell}}
		if r.Random.Intn(2) == 1 {
			uses[0], uses[1] = uses[1], uses[0]
		}
		for _, u := range uses {
			s, err := r.Segment("load", map[string]string{
				"pool": u.name, "rate": strconv.Itoa(rate), "window_s": strconv.FormatFloat(o.window.Seconds(), 'f', -1, 64),
				"chapter": strconv.Itoa(*o.chapter), "missed": strconv.Itoa(*o.missed), "gogc": strconv.Itoa(*o.gogc),
				"library_mib": strconv.Itoa(*o.library), "workers": strconv.Itoa(*o.workers),
			})
			if err != nil {
				return err
			}
			o.serve(s, book, u, schedule)
		}
	}
	runtime.KeepAlive(library)
	return nil
}

type use struct {
	name   string
	render func(*Book, *Pool, int, bool) Page
}

// request is planned beforehand: when it is meant to be sent (ns after the start), and what it asks for.
type request struct {
	at      int64
	chapter int
	branch  int // 0 to 99; an excerpt is asked for below the option missed
}

// arrivals plans an open loop: exponential gaps, as independent users give them, whatever the service does.
func arrivals(random *rand.Rand, rate int, window time.Duration) []request {
	var schedule []request
	for at := 0.0; ; {
		at += random.ExpFloat64() / float64(rate) * 1e9
		if at >= float64(window.Nanoseconds()) {
			return schedule
		}
		schedule = append(schedule, request{at: int64(at), chapter: random.Intn(chapters), branch: random.Intn(100)})
	}
}

// meter is what one worker measures.
type meter struct {
	latency, service, late labkit.Histogram
	bytes                  int64
	sum                    uint32
}

// answer waits for the time of a request, renders it, and takes its times.
func (m *meter) answer(wanted request, begin int64, render func(request) Page) {
	due := begin + wanted.at
	if now := labkit.Monotonic(); now < due {
		time.Sleep(time.Duration(due - now))
	}
	started := labkit.Monotonic()
	page := render(wanted)
	ended := labkit.Monotonic()
	m.latency.Record(ended - due)
	m.service.Record(ended - started)
	m.late.Record(started - due)
	m.bytes += int64(page.Length)
	m.sum += page.Sum + uint32(len(page.Headings)+len(page.Title))
}

// serve answers the planned requests with a fixed number of workers. A request that finds all of them busy waits, and its latency counts from
// the time at which it was meant to be sent: that a slow service gets fewer requests must not hide its slowness
// (coordinated omission). service_ns is what a closed loop would have called latency.
func (o *options) serve(s *labkit.Segment, book *Book, u use, schedule []request) {
	pool := NewPool()
	meters := make([]meter, *o.workers)
	done := make(chan struct{}, *o.workers)
	var next atomic.Int64
	var elapsed int64
	runtime.GC()
	s.Enter()
	found := measure(func() {
		begin := labkit.Monotonic()
		for i := range meters {
			m := &meters[i]
			go func() {
				for n := next.Add(1) - 1; n < int64(len(schedule)); n = next.Add(1) - 1 {
					m.answer(schedule[n], begin, func(wanted request) Page {
						return u.render(book, pool, wanted.chapter, wanted.branch < *o.missed)
					})
				}
				done <- struct{}{}
			}()
		}
		for range meters {
			<-done
		}
		elapsed = labkit.Monotonic() - begin
	})
	s.Leave()
	found.keep(s)
	s.Counts["elapsed_ns"] = elapsed
	s.Counts["requests"] = int64(len(schedule))
	s.Counts["pool_misses"] = pool.misses.Load()
	s.Counts["pool_given"] = pool.given.Load()
	total := new(meter)
	for i := range meters {
		total.latency.Merge(&meters[i].latency)
		total.service.Merge(&meters[i].service)
		total.late.Merge(&meters[i].late)
		total.bytes += meters[i].bytes
		total.sum += meters[i].sum
	}
	s.Histogram("latency_ns", &total.latency)
	s.Histogram("service_ns", &total.service)
	s.Histogram("late_ns", &total.late)
	s.Counts["page_bytes"] = total.bytes
	s.Counts["page_sum"] = int64(total.sum)
}
