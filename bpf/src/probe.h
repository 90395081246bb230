// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0)
/*
 * Maps and helpers of all programs.
 *
 * Counters are per CPU and still added to atomically: from 6.0 on a uprobe's program may be preempted by
 * another thread that runs the same program on the same CPU (bpf_prog_run_array_uprobe only disables
 * migration), and a plain increment would lose that one.
 */
#ifndef KMLAB_PROBE_H
#define KMLAB_PROBE_H

#include "shared.h"
#include <bpf/bpf_helpers.h>

/*
 * Set by the loader from the probe plan, before the programs are loaded: NAME_offset from the plan's offsets,
 * reason_NAME from its reasons, range_NAME_start and _end (linked addresses) from its ranges, want_NAME from
 * its features.
 */
const volatile u32 target_tgid = 0;
const volatile u32 goid_offset = 0;
const volatile u32 parent_goid_offset = 0;
const volatile u32 start_pc_offset = 0;
const volatile u32 go_pc_offset = 0;
const volatile u32 g_m_offset = 0;
const volatile u32 m_p_offset = 0;
const volatile u32 hchan_lock_offset = 0;
const volatile u32 hchan_recvq_offset = 0;
const volatile u32 hchan_sendq_offset = 0;
const volatile u32 ctx_done_offset = 0;
const volatile u32 ctx_children_offset = 0;
const volatile u32 ctx_mu_offset = 0;
const volatile u32 ctx_err_offset = 0;
const volatile u8 reason_mutex = 0;
const volatile u8 reason_rwmutex_read = 0;
const volatile u8 reason_rwmutex_write = 0;
const volatile u8 reason_chan_send = 0;
const volatile u8 reason_chan_receive = 0;
/* Linked address of go_execute's probe: what its first hit shows is the load bias of a PIE. */
const volatile u64 execute_address = 0;
/* A bit for each wait reason of which every wait is recorded. */
const volatile u64 recorded_reasons = 0;
/* Whether the lock of each wait is told, which needs the hooks on semaphores. */
const volatile u8 want_locks = 0;
/* Whether lock and queue of a channel are looked at when a goroutine parks on it. */
const volatile u8 want_channels = 0;
/* Whether each stretch that a goroutine runs is recorded. */
const volatile u8 want_runs = 0;
/* Distance of the semaphore from the start of its lock: sync/mutex.go and sync/rwmutex.go, the same in 1.21
 * to 1.27. */
const volatile u32 mutex_semaphore_offset = 4;
const volatile u32 rw_writer_semaphore_offset = 8;
const volatile u32 rw_reader_semaphore_offset = 12;

/* Nobody sets it; the verifier knows, the compiler does not. */
const volatile u8 never = 0;

/* Where the target is now: written by go_mark. */
volatile u32 current_segment = 0;
/* Whether the target has segments at all: set by its first mark. */
volatile u32 has_segments = 0;
/* Address of the object that the target wants to be looked for in registers, 0 for none: written by go_watch.
 */
volatile u64 watched = 0;
/* Address at which go_execute was first hit; less the linked address, it is the load bias. 0: the runtime has
 * not begun. */
volatile u64 execute_ip = 0;

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SEGMENTS);
	__type(key, u32);
	__type(value, struct counters);
} segment_counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct losses);
} loss_counters SEC(".maps");

/* The context that each goroutine last began to cancel. An entry serves the close that follows, in the same
 * call; the oldest go first. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct goroutine_key);
	__type(value, u64);
} cancelling SEC(".maps");

/* The loader gives each probe a program and a map of its own, so that hits are known by probe. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u64);
} probe_hits SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SEGMENTS);
	__type(key, u32);
	__type(value, struct reason_counters);
} park_reasons SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, struct goroutine_key);
	__type(value, struct park);
} parked SEC(".maps");

/*
 * Semaphore that a goroutine last asked for: gopark itself is only told the lock of the wait queue. An entry
 * outlives the park, because semacquire1 parks again in its loop when another goroutine was faster. Nothing
 * says when it is no longer needed, so the oldest go first; one that went too soon is counted as
 * LOSS_address_unknown.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct goroutine_key);
	__type(value, u64);
} wanted SEC(".maps");

/* How many goroutines are parked on a semaphore now. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct address_key);
	__type(value, s64);
} waiters SEC(".maps");

/* Distinct stacks by a 64-bit hash of their addresses. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, u64);
	__type(value, struct stack);
} stacks SEC(".maps");

/* What runs on each thread, where want_runs is set. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, u32);
	__type(value, struct running);
} on_thread SEC(".maps");

/* When each goroutine became ready, where want_runs is set. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, struct goroutine_key);
	__type(value, u64);
} made_ready SEC(".maps");

/* Thread that last ran a goroutine on each P; GOMAXPROCS is at most 1024 here. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1024);
	__type(key, u32);
	__type(value, u32);
} thread_of_p SEC(".maps");

/* When each goroutine that is alive was created. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 262144);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct goroutine_key);
	__type(value, u64);
} alive SEC(".maps");

/* The runtime lock that each thread last tried to take, with CHANNEL_LOCK set where a channel operation did.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, u32);
	__type(value, u64);
} last_lock SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct site_key);
	__type(value, struct site);
} alloc_sites SEC(".maps");

/* Threads of the target that ran goroutines. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, u32);
	__type(value, u64);
} threads SEC(".maps");

/* Empty for ever. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u32);
} no_programs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 16 * 1024 * 1024);
} events SEC(".maps");

static __always_inline void lost(enum loss what)
{
	u32 zero = 0;
	struct losses *losses = bpf_map_lookup_elem(&loss_counters, &zero);

	if (losses)
		__sync_fetch_and_add(&losses->values[what], 1);
}

static __always_inline void add(u32 segment, enum counter what, u64 n)
{
	struct counters *counters = bpf_map_lookup_elem(&segment_counters, &segment);

	if (counters)
		__sync_fetch_and_add(&counters->values[what], n);
	else
		lost(LOSS_segment_invalid);
}

static __always_inline void count(u32 segment, enum counter what)
{
	add(segment, what, 1);
}

static __always_inline void count_reason(u32 segment, u8 reason)
{
	struct reason_counters *counters = bpf_map_lookup_elem(&park_reasons, &segment);
	u64 index = reason;

	if (!counters || index >= REASONS) {
		lost(LOSS_segment_invalid);
		return;
	}
	/* The compiler knows the bound from the comparison, but may have made it on a copy that the verifier
	 * of older kernels does not connect with this one. */
	asm volatile("" : "+r"(index));
	__sync_fetch_and_add(&counters->values[index & (REASONS - 1)], 1);
}

static __always_inline void hit(void)
{
	u32 zero = 0;
	u64 *hits = bpf_map_lookup_elem(&probe_hits, &zero);

	if (hits)
		__sync_fetch_and_add(hits, 1);
}

/*
 * Updates and deletions, tried again where the kernel could not get at the map: up to 6.14 -EBUSY where
 * another program holds the bucket on this CPU (htab_lock_bucket), later a time-out of its lock (rqspinlock),
 * which an emulator causes that does not run the CPU of the holder; and a free list that could not be locked
 * seems empty (-E2BIG). The answer is taken as the int that it is before 6.4: what stands in the upper half
 * of the register there is not its sign, so that a long is never equal to -EEXIST.
 */
#define TRIES 4

static __always_inline int put(void *map, const void *key, const void *value, u64 flags)
{
	int error = 0;

#pragma clang loop unroll(full)
	for (int i = 0; i < TRIES; i++) {
		error = bpf_map_update_elem(map, key, value, flags);
		if (!error || error == -EEXIST)
			break;
	}
	return error;
}

/* Only what was just found is deleted, so that an entry that is gone already is an error, too. */
static __always_inline int drop(void *map, const void *key)
{
	int error = 0;

#pragma clang loop unroll(full)
	for (int i = 0; i < TRIES; i++) {
		error = bpf_map_delete_elem(map, key);
		if (!error || error == -ENOENT)
			break;
	}
	return error;
}

/*
 * Keeps a uprobe's program on the stack of its thread; nothing is ever called. From 6.13 on (and in 6.12 from
 * its stable updates), programs with 64 bytes of stack or more get a private stack, one for each CPU
 * (bpf_enable_priv_stack in kernel/bpf/verifier.c), which trusts that none is entered twice on one CPU. That
 * is not so for uprobes: where the kernel preempts (7.3 of Debian does, "Dynamic Preempt: lazy"), another
 * thread enters the same program on the same CPU and writes into the same stack. Goroutine ids and stacks
 * were mixed up, about three times in 30 000 hits. Programs with a tail call have no private stack; the
 * verifier sees that this one is never reached and takes it out.
 */
static __always_inline void stay_on_own_stack(struct pt_regs *ctx)
{
	if (never)
		bpf_tail_call(ctx, &no_programs, 0);
}

/* Tracepoints' programs are not preempted, and their type cannot share an array of programs with uprobes. */
static __always_inline void leave_stack(void *ctx)
{
}

static __always_inline int runs_in_target(void)
{
	return bpf_get_current_pid_tgid() >> 32 == target_tgid;
}

/* First thing in every program, which names its context ctx: whether it runs in the target. */
#define is_target()                                                                                          \
	(_Generic((ctx), struct pt_regs *: stay_on_own_stack, default: leave_stack)(ctx), runs_in_target())

/* A word of the target's memory, or 0 and a counted loss. */
static __always_inline u64 word(u64 address)
{
	u64 value = 0;

	if (bpf_probe_read_user(&value, sizeof(value), (void *)address))
		lost(LOSS_field_failed);
	return value;
}

/* How far the kernel moved the binary; known once a goroutine ran. */
static __always_inline u64 load_bias(void)
{
	return execute_ip ? execute_ip - execute_address : 0;
}

/* Whether a runtime address lies in a function of which the plan gave the linked range; no range is empty. */
static __always_inline int in_range(u64 address, u64 start, u64 end)
{
	address -= load_bias();
	return address >= start && address < end;
}

/* Room for an event of that kind, now, in the current segment; or NULL and a counted loss. */
static __always_inline struct event *new_event(enum kind kind, u64 goid)
{
	struct event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);

	if (!event) {
		lost(LOSS_ring_full);
		return event;
	}
	__builtin_memset(event, 0, sizeof(*event));
	event->start_ns = bpf_ktime_get_ns();
	event->goid = goid;
	event->tid = bpf_get_current_pid_tgid();
	event->segment = current_segment;
	event->kind = kind;
	return event;
}

/* The loader looks at fixed intervals: a wake-up per event would disturb what is measured. */
static __always_inline void submit(struct event *event)
{
	bpf_ringbuf_submit(event, BPF_RB_NO_WAKEUP);
}

/* Id of the goroutine whose g lies at that address, as a key; 0 and a counted loss when it cannot be read. */
static __always_inline int goroutine(u64 g, struct goroutine_key *key)
{
	key->goid = 0;
	key->tgid = target_tgid;
	key->pad = 0;
	if (bpf_probe_read_user(&key->goid, sizeof(key->goid), (void *)(g + goid_offset)) || !key->goid) {
		lost(LOSS_goid_failed);
		return 0;
	}
	return 1;
}

/*
 * The user stack at a probe before the frame of the probed function is set up (pp point, entry, RET): the
 * return address lies at the top of the stack, and the frame pointer is the caller's. bpf_get_stackid is not
 * used: up to 6.10 it leaves the immediate caller out at such a point, and later kernels put it in (perf:
 * "x86: get the real caller at a uprobe on a function's entry"), so that stacks would differ by kernel.
 */
static __always_inline void walk(struct pt_regs *ctx, struct stack *stack)
{
	u64 frame[2] = {ctx->bp, 0};
	u64 here = 0;

	__builtin_memset(stack, 0, sizeof(*stack));
	stack->ip[0] = ctx->ip;
	stack->depth = 1;
	if (bpf_probe_read_user(&here, sizeof(here), (void *)ctx->sp)) {
		lost(LOSS_stack_failed);
		return;
	}
	stack->ip[1] = here;
	stack->depth = 2;
	here = ctx->sp;
#pragma clang loop unroll(full)
	for (int i = 2; i < MAX_FRAMES; i++) {
		/* The stack grows down, so a frame pointer that does not rise is the end of the chain or not
		 * one. */
		if (frame[0] <= here)
			return;
		here = frame[0];
		if (bpf_probe_read_user(frame, sizeof(frame), (void *)here)) {
			lost(LOSS_stack_failed);
			return;
		}
		if (!frame[1])
			return;
		stack->ip[i] = frame[1];
		stack->depth = i + 1;
	}
	if (frame[0] > here)
		lost(LOSS_stack_truncated);
}

/* Keeps a stack and gives its key, or 0 and a counted loss. */
static __always_inline u64 keep(struct stack *stack)
{
	u64 hash = 0xcbf29ce484222325ULL;
	int error;

#pragma clang loop unroll(full)
	for (int i = 0; i < MAX_FRAMES; i++) {
		/* Multiply and fold; the constant is 2^64 divided by the golden ratio. */
		hash = (hash ^ stack->ip[i]) * 0x9e3779b97f4a7c15ULL;
		hash ^= hash >> 32;
	}
	if (!hash)
		hash = 1;
	if (bpf_map_lookup_elem(&stacks, &hash))
		return hash;
	error = put(&stacks, &hash, stack, BPF_NOEXIST);
	if (!error || error == -EEXIST)
		return hash;
	lost(LOSS_stack_failed);
	return 0;
}

/* Keeps the stack at the probe and gives its key, or 0 and a counted loss. */
static __always_inline u64 keep_stack(struct pt_regs *ctx)
{
	struct stack stack;

	walk(ctx, &stack);
	return keep(&stack);
}

#endif
