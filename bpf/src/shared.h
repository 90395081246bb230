// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0)
/*
 * What the programs and the loader share. The loader reads the names of counters and losses from the type
 * information of the object (enum counter, enum loss): they are written once, here.
 */
#ifndef KMLAB_SHARED_H
#define KMLAB_SHARED_H

#include "kernel.h"

/* Segments 1 to 510 are the workload's, 0 is everything outside, 511 the self-test of the goid offset. */
#define SEGMENTS 512

/* Deepest stack that is kept. Waiters of a lock are six to ten frames deep. */
#define MAX_FRAMES 24

enum counter {
	COUNTER_slow,	       /* Mutex.lockSlow entered */
	COUNTER_sem,	       /* semacquire1 called with the wait reason of a Mutex or an RWMutex */
	COUNTER_sem_rw_reader, /* sync.runtime_SemacquireRWMutexR */
	COUNTER_sem_rw_writer, /* sync.runtime_SemacquireRWMutex */
	COUNTER_park_mutex,    /* gopark by wait reason */
	COUNTER_park_rw_reader,
	COUNTER_park_rw_writer,
	COUNTER_park_other, /* gopark for any other reason; no event, no stack */
	COUNTER_resumed,    /* execute that ended a park on a lock, in the segment of the park */
	COUNTER_execute,    /* every execute */
	COUNTER_futex_wait,
	COUNTER_futex_wake,
	COUNTER_futex_on_lock, /* futex call on the semaphore or state word of a lock that has a waiter parked
				*/
	COUNTER_sched_switch,  /* a thread of the target left a CPU */
	COUNTER_marks,	       /* segment changes, in the segment that was entered */
	COUNTERS,
};

enum loss {
	LOSS_ring_full,	      /* no room for an event: counted, its time and stack are lost */
	LOSS_map_full,	      /* an update or a deletion in a map failed */
	LOSS_stack_failed,    /* a frame or the map of stacks could not be read or written */
	LOSS_stack_truncated, /* deeper than MAX_FRAMES: the innermost are kept */
	LOSS_goid_failed,     /* the id of a goroutine could not be read */
	LOSS_address_unknown, /* a park on a lock, but the semacquire1 before it was not seen or is forgotten
			       */
	LOSS_expired,	      /* a goroutine parked again while its former park was still open */
	LOSS_segment_invalid, /* a segment id above 511 */
	LOSSES,
};

struct counters {
	u64 values[COUNTERS];
};

struct losses {
	u64 values[LOSSES];
};

/* Keys have explicit padding and are filled completely: 5.10 and 6.1 reject uninitialised bytes of a key. */
struct goroutine_key {
	u64 goid;
	u32 tgid;
	u32 pad;
};

struct address_key {
	u64 address;
	u32 tgid;
	u32 pad;
};

/* A park under way. */
struct park {
	u64 start_ns;
	u64 lock;
	u64 semaphore;
	u64 stack;
	u16 segment;
	u8 reason;
	u8 pad[5];
};

/* One wait, from gopark to execute, as the ring buffer carries it. */
struct park_event {
	u64 start_ns; /* CLOCK_MONOTONIC */
	u64 duration_ns;
	u64 lock; /* address of the sync.Mutex or sync.RWMutex */
	u64 goid;
	u64 stack; /* key of the map of stacks, 0 for none */
	u32 tid;   /* thread that resumed the goroutine */
	u16 segment;
	u8 kind;   /* KIND_PARK */
	u8 reason; /* runtime.waitReason */
};

#define KIND_PARK 1

/* Innermost first; ip[0] is the probed instruction itself. */
struct stack {
	u64 depth;
	u64 ip[MAX_FRAMES];
};

#endif
