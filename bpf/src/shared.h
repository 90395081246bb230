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
	/* sync */
	COUNTER_slow,	       /* Mutex.lockSlow entered */
	COUNTER_sem,	       /* semacquire1 called with the wait reason of a Mutex or an RWMutex */
	COUNTER_sem_rw_reader, /* sync.runtime_SemacquireRWMutexR */
	COUNTER_sem_rw_writer, /* sync.runtime_SemacquireRWMutex */
	/* scheduler */
	COUNTER_park_mutex, /* gopark by wait reason; every reason is counted in reason_counters, too */
	COUNTER_park_rw_reader,
	COUNTER_park_rw_writer,
	COUNTER_park_other, /* gopark for a reason whose waits are not recorded; no event, no stack */
	COUNTER_resumed,    /* execute that ended a recorded park, in the segment of the park */
	COUNTER_execute,    /* every execute */
	COUNTER_runnext,    /* those that inherit the time slice: taken from runnext of the local queue */
	COUNTER_ready,	    /* runtime.ready */
	COUNTER_preempt,    /* goroutine put back on the global queue because its time was over */
	COUNTER_yield,	    /* runtime.Gosched */
	COUNTER_goyield,    /* goyield: hands the rest of its time to the one it woke */
	COUNTER_steal_tries,
	COUNTER_stolen,		/* runqsteal that returned a goroutine */
	COUNTER_global_got,	/* goroutines or batches taken from the global queue */
	COUNTER_handoff_p,	/* handoffp: a P is taken from an M that is in a system call */
	COUNTER_local_put,	/* runqput: goroutines put on a P's own queue or into its runnext */
	COUNTER_local_overflow, /* runqputslow: half of a full local queue went to the global one */
	COUNTER_enter_syscall,	/* entersyscall: a goroutine of the target began a system call that may block
				 */
	COUNTER_p_moved,	/* a goroutine began to run on a P whose last one was on another thread */
	/* goroutines */
	COUNTER_created,
	COUNTER_ended,
	COUNTER_panics,
	/* channels */
	COUNTER_chan_send, /* chansend, blocking; _try is the form of a select with default */
	COUNTER_chan_send_try,
	COUNTER_chan_recv,
	COUNTER_chan_recv_try,
	COUNTER_select,
	COUNTER_select_try,
	COUNTER_handoff_send,	 /* runtime.send: a value went straight to a receiver that waited */
	COUNTER_handoff_recv,	 /* runtime.recv: a value was taken from a sender that waited */
	COUNTER_close,		 /* closechan */
	COUNTER_chan_in_ax,	 /* chansend or chanrecv with the watched address in RAX (labkit.Watch) */
	COUNTER_chan_in_di,	 /* the same in RDI, the first argument of C */
	COUNTER_chan_entry_held, /* chansend or chanrecv entered while the channel's lock was held */
	COUNTER_chan_park_held,	 /* park on a channel while its lock was held */
	COUNTER_chan_park_last,	 /* park on a channel in whose queue the goroutine already was, as the last */
	COUNTER_chan_lock,	 /* lock2 called by the channel operations */
	COUNTER_chan_lock_sleep, /* such a lock2 that had to sleep on a futex */
	COUNTER_lock_sleep,	 /* any lock2 that had to */
	COUNTER_futex_sleep,	 /* futexsleep, for whatever reason */
	/* contexts */
	COUNTER_cancel, /* (*cancelCtx).cancel */
	/* defers */
	COUNTER_deferproc,
	COUNTER_deferproc_stack,
	COUNTER_defer_return,
	COUNTER_defer_at, /* deferprocat: a defer in the body of a range-over-func loop */
	COUNTER_defer_alloc,
	/* memory */
	COUNTER_malloc,
	COUNTER_malloc_bytes,
	COUNTER_collections, /* gcMarkTermination */
	COUNTER_stw,	     /* the world was stopped, for any reason */
	/* kernel */
	COUNTER_futex_wait,
	COUNTER_futex_wake,
	COUNTER_futex_on_lock, /* futex call on the semaphore or state word of a lock that has a waiter parked
				*/
	COUNTER_sched_switch,  /* a thread of the target left a CPU */
	COUNTER_syscall,       /* a thread of the target entered a system call */
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
	LOSS_field_failed,    /* a field of a goroutine, P, context or channel could not be read */
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

struct site_key {
	u64 stack;
	u32 segment;
	u32 pad;
};

/* Allocations with one stack in one segment. */
struct site {
	u64 count;
	u64 bytes;
};

/* A park under way. */
struct park {
	u64 start_ns;
	u64 address;
	u64 semaphore;
	u64 stack;
	u16 segment;
	u8 reason;
	u8 pad[5];
};

/* A goroutine that runs on a thread now. */
struct running {
	u64 start_ns;
	u64 goid;
	u64 latency_ns; /* from ready to execute; 0: it was not seen to become ready */
	u32 proc;
	u16 segment;
	u8 pad[2];
};

enum kind {
	KIND_PARK =
	    1,	  /* a wait, from gopark to execute: address of the lock or channel, stack of the waiter */
	KIND_RUN, /* a goroutine ran on a thread: value is its P, object the ns from ready to execute, reason
		     how it ended (a wait reason, or one of enum ran) */
	KIND_CREATE,  /* goid is the new one, value its parent, stack its function and the go statement */
	KIND_END,     /* duration is its life, 0 where its creation was not seen */
	KIND_PANIC,   /* gopanic with the stack of the one who panics */
	KIND_CLOSE,   /* closechan: address of the channel; object is the context whose cancel closes it (0:
		      none does), value then how that context is meanwhile, of enum context_state */
	KIND_CANCEL,  /* address of the cancelCtx, object its done channel (0: none), value its children */
	KIND_STW,     /* from stopTheWorldWithSema to startTheWorldWithSema, reason is the stwReason */
	KIND_STEAL,   /* runqsteal: goid is the stolen one */
	KIND_WAITING, /* made by the loader at the end: a park that nothing ended */
	KIND_LOCK_SLEEP, /* a thread sleeps for the lock of the channel at that address */
};

/* How a run ended where no wait reason says it; above every wait reason. */
enum ran {
	RAN_exited = 200,
	RAN_preempted,
	RAN_yielded,
	RAN_superseded, /* the thread ran another one without a park seen: a coroutine switch */
	RAN_syscall,	/* it entered a system call: it keeps the thread, and loses the P if it takes long */
};

/* How a context is while its done channel is closed. */
enum context_state {
	CONTEXT_LOCKED = 1, /* its mutex is held */
	CONTEXT_MARKED = 2, /* its err is set: whoever asks is told that it is cancelled */
};

/* One event, as the ring buffer carries it. Fields that a kind does not name are 0. */
struct event {
	u64 start_ns; /* CLOCK_MONOTONIC */
	u64 duration_ns;
	u64 address;
	u64 object;
	u64 value;
	u64 goid;
	u64 stack; /* key of the map of stacks, 0 for none */
	u32 tid;
	u16 segment;
	u8 kind;
	u8 reason; /* runtime.waitReason, or what the kind says */
};

/* Parks by wait reason: Go 1.27 has 46 of them. */
#define REASONS 64

struct reason_counters {
	u64 values[REASONS];
};

/* Innermost first; ip[0] is the probed instruction itself. */
struct stack {
	u64 depth;
	u64 ip[MAX_FRAMES];
};

#endif
