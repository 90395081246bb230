package labkit

import (
	"sync/atomic"
	"testing"
)

func TestKindsOfBlockingAreToldByTheInnermostFunction(t *testing.T) {
	for stack, want := range map[string]string{
		"runtime.chansend1": "block_chan_send", "runtime.chanrecv2": "block_chan_receive", "runtime.selectgo": "block_select",
		"sync.(*Mutex).Lock": "block_other",
	} {
		if got := blockKind([]string{stack, "main.main"}); got != want {
			t.Errorf("blockKind(%s) = %s, want %s", stack, got, want)
		}
	}
	if got := blockKind(nil); got != "block_other" {
		t.Errorf("blockKind of no stack = %s", got)
	}
}

func TestASegmentCountsTheWaitsThatEndedInItWhereTheBlockProfileIsKept(t *testing.T) {
	o := NewOptions("forced")
	o.KeepBlockProfile()
	if err := o.Parse([]string{"--phase=profiled"}); err != nil {
		t.Fatal(err)
	}
	var s *Segment

	_, err := Execute("labkit", o, func(r *Run) (err error) {
		if s, err = r.Segment("forced", nil); err != nil {
			return err
		}
		return s.Quiet(func() error {
			c := make(chan int)
			var done atomic.Int64
			for i := 0; i < 3; i++ {
				go func() { c <- 1; done.Add(1) }()
			}
			if err := AwaitParked(OnSend, 3); err != nil {
				return err
			}
			for i := 0; i < 3; i++ {
				<-c
			}
			return AwaitCount(&done, 3)
		})
	})

	if err != nil {
		t.Fatal(err)
	}
	want := map[string]int64{"block_chan_send": 3, "block_chan_receive": 0, "block_select": 0, "block_other": 0}
	for name, n := range want {
		if got, there := s.Counts[name]; !there || got != n {
			t.Errorf("%s = %d, want %d", name, got, n)
		}
	}
}
