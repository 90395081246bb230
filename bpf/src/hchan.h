// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0)
/* A channel in memory: its lock and its queues (type hchan, runtime/chan.go). */
#ifndef KMLAB_HCHAN_H
#define KMLAB_HCHAN_H

#include "probe.h"

/* Linked range of a function that only the newer form of the runtime's locks has. */
const volatile u64 range_unlock2Wake_start = 0, range_unlock2Wake_end = 0;

/*
 * Whether the runtime lock at that address is held. Up to Go 1.23 its word is 0, 1 (held) or 2 (held, and a
 * thread sleeps), 32 bits of it (runtime/lock_futex.go). From 1.24 on bit 0 says it, and the rest tells of
 * those who wait, whether it is held or not (runtime/lock_spinbit.go).
 */
static __always_inline int is_held(u64 lock)
{
	u64 key = word(lock);

	return range_unlock2Wake_start ? key & 1 : (u32)key != 0;
}

/* What state a channel is in when the goroutine with that g parks on it, in the queue at that address. */
static __always_inline void look_at_channel(u64 lock, u64 queue, u64 g)
{
	u64 last;

	if (is_held(lock))
		count(current_segment, COUNTER_chan_park_held);
	/* type waitq struct { first, last *sudog }; type sudog struct { g *g; ... } */
	last = word(queue + sizeof(u64));
	if (last && word(last) == g)
		count(current_segment, COUNTER_chan_park_last);
}

#endif
