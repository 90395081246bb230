package main

import (
	"errors"

	"kmlab/labkit"
)

// scenes lists the forced scenes.
func scenes() []scene {
	return []scene{
		{"send, unbuffered", true, sendUnbuffered, func(n int) map[string]int {
			return waits(n, map[string]int{"chan_send": n, "chan_recv": n, "handoff_recv": n, sending: n, "chan_lock": 2 * n, "chan_in_ax": 2 * n})
		}},
		{"receive, unbuffered", true, receiveUnbuffered, func(n int) map[string]int {
			return waits(n, map[string]int{"chan_send": n, "chan_recv": n, "handoff_send": n, receiving: n, "chan_lock": 2 * n, "chan_in_ax": 2 * n})
		}},
		{"send, full buffer", true, sendFull, func(n int) map[string]int {
			// n values fill the buffer first. While a sender waits, recv takes the oldest value and puts the sender's in its place.
			return waits(n, map[string]int{
				"chan_send": 2 * n, "chan_recv": 2 * n, "handoff_recv": n, sending: n, "chan_lock": 4 * n, "chan_in_ax": 4 * n,
			})
		}},
		{"receive, empty buffer", true, receiveEmpty, func(n int) map[string]int {
			return waits(n, map[string]int{"chan_send": n, "chan_recv": n, "handoff_send": n, receiving: n, "chan_lock": 2 * n, "chan_in_ax": 2 * n})
		}},
		{"buffer with room", false, throughBuffer, func(n int) map[string]int {
			return map[string]int{"chan_send": n, "chan_recv": n, "chan_lock": 2 * n, "chan_in_ax": 2 * n}
		}},
		{"select, none ready", false, selectWaits, func(n int) map[string]int {
			// Both locks before the wait and both after it; then the sender's.
			return map[string]int{
				"select": n, selecting: n, "chan_send": n, "handoff_send": n, "chan_lock": 5 * n, "chan_in_ax": n, "resumed": n,
			}
		}},
		{"select, one ready", false, selectReady, func(n int) map[string]int {
			return map[string]int{"select": n, "chan_send": n, "chan_lock": 3 * n, "chan_in_ax": n}
		}},
		{"try", false, try, func(n int) map[string]int {
			// One case and a default is a try; two cases and a default are a select that takes both locks.
			return map[string]int{"chan_send_try": n, "chan_recv_try": n, "select_try": n, "chan_lock": 2 * n, "chan_in_ax": 2 * n}
		}},
		{"close", false, closeWakes, func(n int) map[string]int {
			return waits(n, map[string]int{"chan_recv": n, receiving: n, "close": 1, "chan_lock": n + 1, "chan_in_ax": n})
		}},
		{"nil channel", false, onNil, func(n int) map[string]int {
			return map[string]int{"chan_send": n, "chan_recv": n, nilSending: n, nilReceiving: n, noCases: n}
		}},
	}
}

// waits adds what n waits of sends or receives come with: each ends, and each begins in the queue and under the lock.
func waits(n int, others map[string]int) map[string]int {
	others["resumed"], others["chan_park_held"], others["chan_park_last"] = n, n, n
	return others
}

func sendUnbuffered(c *crowd, n int) error {
	channel := make(chan int)
	watch(c, channel)
	if err := c.park(n, labkit.OnSend, func() { channel <- 1 }); err != nil {
		return err
	}
	for i := 0; i < n; i++ {
		<-channel
	}
	return c.wait()
}

func receiveUnbuffered(c *crowd, n int) error {
	return receiveFrom(c, n, make(chan int))
}

func receiveEmpty(c *crowd, n int) error {
	return receiveFrom(c, n, make(chan int, n))
}

func receiveFrom(c *crowd, n int, channel chan int) error {
	watch(c, channel)
	if err := c.park(n, labkit.OnReceive, func() { <-channel }); err != nil {
		return err
	}
	for i := 0; i < n; i++ {
		channel <- i
	}
	return c.wait()
}

func sendFull(c *crowd, n int) error {
	channel := make(chan int, n)
	watch(c, channel)
	for i := 0; i < n; i++ {
		channel <- i
	}
	if err := c.park(n, labkit.OnSend, func() { channel <- 1 }); err != nil {
		return err
	}
	for i := 0; i < 2*n; i++ {
		<-channel
	}
	return c.wait()
}

func throughBuffer(c *crowd, n int) error {
	channel := make(chan int, n)
	watch(c, channel)
	for i := 0; i < n; i++ {
		channel <- i
	}
	for i := 0; i < n; i++ {
		if got := <-channel; got != i {
			return errors.New("a value came out of the buffer out of its turn")
		}
	}
	return nil
}

func selectWaits(c *crowd, n int) error {
	channel, other := make(chan int), make(chan int)
	watch(c, channel)
	c.segment.Addresses["other"] = address(other)
	err := c.park(n, labkit.OnSelect, func() {
		select {
		case <-channel:
		case <-other:
		}
	})
	if err != nil {
		return err
	}
	for i := 0; i < n; i++ {
		channel <- i
	}
	return c.wait()
}

func selectReady(c *crowd, n int) error {
	channel, other := make(chan int, 1), make(chan int)
	watch(c, channel)
	c.segment.Addresses["other"] = address(other)
	for i := 0; i < n; i++ {
		channel <- i
		select {
		case <-channel:
		case <-other:
			return errors.New("a select received what nobody sent")
		}
	}
	return nil
}

func try(c *crowd, n int) error {
	channel, other := make(chan int), make(chan int)
	watch(c, channel)
	c.segment.Addresses["other"] = address(other)
	failed := 0
	for i := 0; i < n; i++ {
		select {
		case channel <- i:
		default:
			failed++
		}
		select {
		case <-channel:
		default:
			failed++
		}
		select {
		case <-channel:
		case other <- i:
		default:
			failed++
		}
	}
	if failed != 3*n {
		return errors.New("an attempt on a channel with nobody at its other end came through")
	}
	return nil
}

func closeWakes(c *crowd, n int) error {
	channel := make(chan int)
	watch(c, channel)
	if err := c.park(n, labkit.OnReceive, func() { <-channel }); err != nil {
		return err
	}
	close(channel)
	return c.wait()
}

// onNil leaves goroutines that nothing can wake: the trace must have them as waits that never ended.
func onNil(c *crowd, n int) error {
	var channel chan int
	for reason, body := range map[string]func(){
		labkit.OnNilSend: func() { channel <- 1 }, labkit.OnNilReceive: func() { <-channel }, labkit.OnNoCases: func() { select {} },
	} {
		if err := c.park(n, reason, body); err != nil {
			return err
		}
	}
	c.segment.Counts["waits_forever"] = int64(3 * n)
	return nil
}
