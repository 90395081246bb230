package labkit

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestOptionsAreRead(t *testing.T) {
	o := NewOptions("forced", "free")
	sizes := o.Ints("sizes", "4,16", 1, 64)
	rounds := o.Int("rounds", 10, 1, 100)
	rep := o.Seconds("rep", 0.5, 0.1, 2)
	order := o.Choice("order", "random", "random", "fixed")

	err := o.Parse([]string{"--sizes=1,64", "--rounds=7", "--rep=0.25", "--order=fixed", "--phase=traced", "--sections=free", "--seed=9"})

	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(*sizes, []int{1, 64}) || *rounds != 7 || *rep != 250*time.Millisecond || *order != "fixed" {
		t.Errorf("options = %v %v %v %v", *sizes, *rounds, *rep, *order)
	}
	if o.Phase != "traced" || o.Seed != 9 || !o.Has("free") || o.Has("forced") {
		t.Errorf("phase %s, seed %d, sections %v", o.Phase, o.Seed, o.Sections)
	}
}

func TestSecondsAreReadAsNumbersAndAsDurations(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"5": 5 * time.Second, "0.5": 500 * time.Millisecond, "90s": 90 * time.Second, "20m": 20 * time.Minute, "3h": 3 * time.Hour,
		"1h30m": 90 * time.Minute, "250ms": 250 * time.Millisecond,
	} {
		o := NewOptions("forced")
		duration := o.Seconds("duration", 1, 0.1, 86400)

		err := o.Parse([]string{"--duration=" + text})

		if err != nil || *duration != want {
			t.Errorf("%s = %v, %v; want %v", text, *duration, err, want)
		}
	}
}

func TestOptionsRefuseWhatCannotBeMeant(t *testing.T) {
	for argument, word := range map[string]string{
		"--sizes=0":          "outside 1 to 64",
		"--sizes=4,65":       "outside 1 to 64",
		"--sizes=4,4":        "twice",
		"--sizes=":           "no whole number",
		"--sizes=1e3":        "no whole number",
		"--rep=NaN":          "outside",
		"--rep=0.05":         "outside",
		"--rep=soon":         "no number of seconds",
		"--rep=3h":           "outside",
		"--rep=1h1":          "no number of seconds",
		"--order=backwards":  "random, fixed",
		"--phase=tracing":    "--phase",
		"--sections=forcing": "--sections",
		"--unknown=1":        "not defined",
		"stray":              "unexpected argument",
	} {
		o := NewOptions("forced")
		o.Ints("sizes", "4", 1, 64)
		o.Seconds("rep", 0.5, 0.1, 2)
		o.Choice("order", "random", "random", "fixed")

		err := o.Parse([]string{argument})

		if err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("Parse(%s) = %v, want an error with %q", argument, err, word)
		}
	}
}
