package labkit

import (
	"flag"
	"fmt"
	"io"
	"sort"
	"strconv"
	"strings"
	"time"
)

// Options are what every workload understands; a lab adds its own with Int, Ints, Seconds and Choice before Parse.
type Options struct {
	Phase    string
	Sections []string
	Seed     int64

	flags    *flag.FlagSet
	declared []Declared
	sections []string
	raw      struct{ sections string }
	blocking bool
}

// Declared describes one option of a lab as its lab.toml must describe it too; --describe prints the list.
type Declared struct {
	Name    string   `json:"name"`
	Kind    string   `json:"kind"`
	Default string   `json:"default"`
	Minimum *float64 `json:"minimum,omitempty"`
	Maximum *float64 `json:"maximum,omitempty"`
	Choices []string `json:"choices,omitempty"`
}

// NewOptions starts the options of a workload whose sections are named.
func NewOptions(sections ...string) *Options {
	o := &Options{flags: flag.NewFlagSet("workload", flag.ContinueOnError), sections: sections}
	o.flags.SetOutput(io.Discard)
	o.flags.StringVar(&o.Phase, "phase", "timed", "timed, traced, profiled or kernel")
	o.flags.StringVar(&o.raw.sections, "sections", strings.Join(sections, ","), "sections to run, comma-separated")
	o.flags.Int64Var(&o.Seed, "seed", 1, "seed of every random order")
	return o
}

// Int declares a whole number from low to high.
func (o *Options) Int(name string, value, low, high int) *int {
	o.declare(name, "int", strconv.Itoa(value), float64(low), float64(high))
	target := new(int)
	*target = value
	o.flags.Func(name, "", func(text string) error {
		n, err := number(text, low, high)
		*target = n
		return err
	})
	return target
}

// Ints declares a comma-separated list of whole numbers from low to high, each given once.
func (o *Options) Ints(name, value string, low, high int) *[]int {
	o.declare(name, "ints", value, float64(low), float64(high))
	target := new([]int)
	parse := func(text string) error {
		var list []int
		seen := map[int]bool{}
		for _, part := range strings.Split(text, ",") {
			n, err := number(strings.TrimSpace(part), low, high)
			if err != nil {
				return err
			}
			if seen[n] {
				return fmt.Errorf("%d is there twice", n)
			}
			seen[n] = true
			list = append(list, n)
		}
		*target = list
		return nil
	}
	if err := parse(value); err != nil {
		panic("default of --" + name + ": " + err.Error())
	}
	o.flags.Func(name, "", parse)
	return target
}

// Seconds declares a duration from low to high seconds: a number of seconds, fractions allowed, or as Go writes durations: 90s, 20m, 3h.
func (o *Options) Seconds(name string, value, low, high float64) *time.Duration {
	o.declare(name, "seconds", strconv.FormatFloat(value, 'f', -1, 64), low, high)
	target := new(time.Duration)
	*target = time.Duration(value * float64(time.Second))
	o.flags.Func(name, "", func(text string) error {
		s, err := strconv.ParseFloat(text, 64)
		if err != nil {
			d, err := time.ParseDuration(text)
			if err != nil {
				return fmt.Errorf("%q is no number of seconds, nor a duration like 90s, 20m or 3h", text)
			}
			s = d.Seconds()
		}
		if !(s >= low && s <= high) { // NaN fails both
			return fmt.Errorf("%v is outside %v to %v seconds", s, low, high)
		}
		*target = time.Duration(s * float64(time.Second))
		return nil
	})
	return target
}

// Choice declares one of several words.
func (o *Options) Choice(name, value string, choices ...string) *string {
	o.declared = append(o.declared, Declared{Name: name, Kind: "choice", Default: value, Choices: choices})
	target := new(string)
	*target = value
	o.flags.Func(name, "", func(text string) error {
		if !contains(choices, text) {
			return fmt.Errorf("%q is not one of %s", text, strings.Join(choices, ", "))
		}
		*target = text
		return nil
	})
	return target
}

func (o *Options) declare(name, kind, value string, low, high float64) {
	o.declared = append(o.declared, Declared{Name: name, Kind: kind, Default: value, Minimum: &low, Maximum: &high})
}

// Declared returns the lab's own options, sorted by name.
func (o *Options) Declared() []Declared {
	list := append([]Declared(nil), o.declared...)
	sort.Slice(list, func(i, j int) bool { return list[i].Name < list[j].Name })
	return list
}

// Parse reads the command line.
func (o *Options) Parse(arguments []string) error {
	if err := o.flags.Parse(arguments); err != nil {
		return err
	}
	if o.flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", o.flags.Arg(0))
	}
	if phases := []string{"timed", "traced", "profiled", "kernel"}; !contains(phases, o.Phase) {
		return fmt.Errorf("--phase: %q is not one of %s", o.Phase, strings.Join(phases, ", "))
	}
	o.Sections = strings.Split(o.raw.sections, ",")
	for _, name := range o.Sections {
		if !contains(o.sections, name) {
			return fmt.Errorf("--sections: %q is not one of %s", name, strings.Join(o.sections, ", "))
		}
	}
	return nil
}

// Has says whether a section was asked for.
func (o *Options) Has(section string) bool {
	return contains(o.Sections, section)
}

func number(text string, low, high int) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0, fmt.Errorf("%q is no whole number", text)
	}
	if n < low || n > high {
		return 0, fmt.Errorf("%d is outside %d to %d", n, low, high)
	}
	return n, nil
}

func contains(list []string, word string) bool {
	for _, w := range list {
		if w == word {
			return true
		}
	}
	return false
}
