package main

import (
	"encoding/json"
	"fmt"
	"math/rand"
	"strings"
	"testing"

	"kmlab/labkit"
)

type segment struct {
	Section    string
	Parameters map[string]string
	Counts     map[string]int64
	Expected   map[string]int64
	Histograms map[string]struct{ Counts map[string]int64 }
	ID         int
}

type output struct {
	Segments []segment
	Heap     []labkit.HeapEntry
}

func execute(t *testing.T, arguments ...string) output {
	t.Helper()
	o := declare()
	if err := o.Parse(arguments); err != nil {
		t.Fatal(err)
	}
	text, err := labkit.Execute("gc", o.Options, o.run)
	if err != nil {
		t.Fatal(err)
	}
	var found output
	if err := json.Unmarshal(text, &found); err != nil {
		t.Fatal(err)
	}
	return found
}

func (o output) section(name string) []segment {
	var found []segment
	for _, s := range o.Segments {
		if s.Section == name {
			found = append(found, s)
		}
	}
	return found
}

// What the forced section promises the probes, MemStats counts in the same process.
func TestForcedNumbersAreThoseOfMemStats(t *testing.T) {
	forced := execute(t, "--phase=traced", "--sections=forced", "--sizes=1,7,300").section("forced")

	if len(forced) != 3*(len(kinds)+1) {
		t.Fatalf("%d segments", len(forced))
	}
	for _, s := range forced {
		for counter, known := range map[string]string{"malloc": "memstats_mallocs", "collections": "memstats_collections"} {
			if expected, there := s.Expected[counter]; there && expected != s.Counts[known] {
				t.Errorf("%v: %s expected %d, MemStats says %d", s.Parameters, counter, expected, s.Counts[known])
			}
		}
		if got := s.Counts["runtime_pauses"]; got != 2*s.Expected["collections"] {
			t.Errorf("%v: %d pauses for the collector", s.Parameters, got)
		}
		if s.Expected["stw"] != s.Counts["runtime_pauses"]+stops {
			t.Errorf("%v: the world is said to stop %d times", s.Parameters, s.Expected["stw"])
		}
	}
}

// The heap profile knows each place by its function. Tiny objects are the exception: those that fit into a block are not in it.
func TestTheHeapProfileNamesEachPlace(t *testing.T) {
	found := execute(t, "--phase=profiled", "--sections=forced", "--sizes=50,200")

	for _, s := range found.section("forced") {
		site := strings.TrimPrefix(s.Parameters["site"], "main") // the package has another name under test
		if site == "" {
			continue
		}
		counted := int64(0)
		for _, entry := range found.Heap {
			if entry.Segment == s.ID && strings.Contains(strings.Join(entry.Frames, " "), site) {
				counted += entry.Count
			}
		}
		if s.Parameters["kind"] == "tiny" {
			if half := s.Expected["malloc"] / 2; counted < half || counted > half+1 {
				t.Errorf("%d of %d tiny objects are in the profile", counted, s.Expected["malloc"])
			}
			continue
		}
		if counted != s.Expected["malloc"] {
			t.Errorf("%s: the profile has %d of %d", site, counted, s.Expected["malloc"])
		}
	}
}

func TestBothPoolsGiveTheSamePages(t *testing.T) {
	book := newBook(rand.New(rand.NewSource(3)), chapters, 2000)
	bad, good := NewPool(), NewPool()

	for i := 0; i < 3*chapters; i++ {
		one, other := book.Misused(bad, i%chapters, i%2 == 0), book.UsedWell(good, i%chapters, i%2 == 0)
		if fmt.Sprint(one) != fmt.Sprint(other) || one.Length < 2000 || len(one.Headings) == 0 {
			t.Fatalf("chapter %d: %v and %v", i%chapters, one, other)
		}
	}

	if bad.given.Load() != 48 || good.given.Load() != 96 {
		t.Errorf("given back: %d and %d of 96", bad.given.Load(), good.given.Load())
	}
}

func TestAPageIsWellFormed(t *testing.T) {
	book := &Book{title: "T", chapters: []string{"# goroutine\na *b* c\n*d* e\n"}}
	pool := NewPool()
	buffer := pool.Get()

	page := book.parseChapter(buffer, 0)

	if got, want := buffer.String(), "<h2>goroutine</h2>\n<p>a <em>b</em> c</p>\n<p><em>d</em> e</p>\n"; got != want {
		t.Errorf("%q", got)
	}
	if page.Title != "T: goroutine\n" || len(page.Headings) != 1 || page.Length != buffer.Len() {
		t.Errorf("%+v", page)
	}
}

func TestEachOfferedRequestIsAnsweredOnce(t *testing.T) {
	load := execute(t, "--sections=load", "--rates=400,2000", "--window=0.1").section("load")

	if len(load) != 4 {
		t.Fatalf("%d segments", len(load))
	}
	requests := map[string]int64{}
	for _, s := range load {
		n := s.Counts["requests"]
		for _, name := range []string{"latency_ns", "service_ns", "late_ns"} {
			sum := int64(0)
			for _, count := range s.Histograms[name].Counts {
				sum += count
			}
			if sum != n {
				t.Errorf("%s holds %d of %d requests", name, sum, n)
			}
		}
		if rate := s.Parameters["rate"]; requests[rate] != 0 && requests[rate] != n {
			t.Errorf("rate %s: the pools were offered %d and %d requests", rate, requests[rate], n)
		}
		requests[s.Parameters["rate"]] = n
		misused := s.Parameters["pool"] == "misused"
		if misused && (s.Counts["pool_misses"] != n || s.Counts["pool_given"] != 0) {
			t.Errorf("misused: %d misses, %d given back, of %d", s.Counts["pool_misses"], s.Counts["pool_given"], n)
		}
		if !misused && s.Counts["pool_given"] != n {
			t.Errorf("used well: %d of %d given back", s.Counts["pool_given"], n)
		}
	}
}

func TestArrivalsKeepToTheRateAndTheSeed(t *testing.T) {
	one := arrivals(rand.New(rand.NewSource(5)), 1000, 10e9)
	two := arrivals(rand.New(rand.NewSource(5)), 1000, 10e9)

	if fmt.Sprint(one) != fmt.Sprint(two) {
		t.Error("the same seed gives other arrivals")
	}
	if n := len(one); n < 9500 || n > 10500 { // five standard deviations of a Poisson count
		t.Errorf("%d arrivals in 10 s at 1000 a second", n)
	}
}

// Each place leaves its last object where it cannot be on a stack.
func TestEachKindLeavesAnObjectAlive(t *testing.T) {
	for _, kind := range kinds {
		kind.run(1)
	}

	if tinySink == nil || noscanSink == nil || scanSink == nil || headerSink == nil || len(sliceSink) != largeBytes {
		t.Error("an object is not there")
	}
	if scanSink.next != nil || headerSink.next != nil {
		t.Error("an object is not zeroed")
	}
}
