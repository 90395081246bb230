package main

import (
	"runtime"
	"strconv"
	"sync/atomic"
	"time"

	"kmlab/labkit"
)

// look is one reading of runtime.NumGoroutine.
type look struct {
	at    int64
	found int
}

// sampler reads runtime.NumGoroutine at every interval, as programs do that watch themselves.
func sampler(interval time.Duration, stop <-chan struct{}, looks chan<- []look) {
	var found []look
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			found = append(found, look{labkit.Monotonic(), runtime.NumGoroutine()})
		case <-stop:
			looks <- found
			return
		}
	}
}

// peaks makes bursts of a known height at random moments: short ones of a tenth of the interval between two looks, long ones of three.
func (o *options) peaks(r *labkit.Run) error {
	stop, looks := make(chan struct{}), make(chan []look, 1)
	go sampler(*o.interval, stop, looks)
	lengths := map[string]time.Duration{"short": *o.interval / 10, "long": 3 * *o.interval}
	names := make([]string, 0, 2**o.bursts)
	for i := 0; i < *o.bursts; i++ {
		names = append(names, "short", "long")
	}
	r.Random.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	bursts := make([]*labkit.Segment, 0, len(names))
	var err error
	for i, name := range names {
		time.Sleep(time.Duration(float64(*o.interval) * (0.5 + r.Random.Float64())))
		var s *labkit.Segment
		if s, err = r.Segment("peak", map[string]string{"length": name, "burst": strconv.Itoa(i)}); err != nil {
			break
		}
		if err = s.Quiet(func() error { return burst(s, *o.height, lengths[name]) }); err != nil {
			break
		}
		bursts = append(bursts, s)
	}
	close(stop)
	for _, each := range <-looks {
		for _, s := range bursts {
			if s.StartNs <= each.at && each.at <= s.EndNs {
				s.Counts["looks"]++
				s.Counts["seen"] = max(s.Counts["seen"], int64(each.found)-s.Counts["before"])
			}
		}
	}
	return err
}

// burst has height goroutines alive at once. The segment is left when the last is gone (see plant).
func burst(s *labkit.Segment, height int, length time.Duration) error {
	var here atomic.Int64
	before := runtime.NumGoroutine()
	gate := make(chan struct{})
	s.Counts["before"], s.Counts["seen"] = int64(before), 0
	s.Expected["created"], s.Expected["ended"] = int64(height), int64(height)
	for i := 0; i < height; i++ {
		go func() {
			here.Add(1)
			<-gate
		}()
	}
	for here.Load() < int64(height) {
		time.Sleep(200 * time.Microsecond)
	}
	time.Sleep(length)
	close(gate)
	return labkit.AwaitGoroutines(before)
}
