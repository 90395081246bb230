// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0)
/* Channels: operations, direct hand-off, and contention for the channel's own lock. */
#ifndef KMLAB_CHANNEL_H
#define KMLAB_CHANNEL_H

#include "sched.h"

/* Linked ranges of the functions that take a channel's lock, and of lock2. */
const volatile u64 range_chansend_start = 0, range_chansend_end = 0;
const volatile u64 range_chanrecv_start = 0, range_chanrecv_end = 0;
const volatile u64 range_closechan_start = 0, range_closechan_end = 0;
const volatile u64 range_selectgo_start = 0, range_selectgo_end = 0;
const volatile u64 range_sellock_start = 0, range_sellock_end = 0;
const volatile u64 range_lock2_start = 0, range_lock2_end = 0;

/* Runtime addresses have the upper half of the address space free. */
#define CHANNEL_LOCK (1ULL << 63)

/* func watch(address uint64) of labkit. */
SEC("uprobe/go_watch")
int go_watch(struct pt_regs *ctx)
{
	if (!is_target())
		return 0;
	hit();
	watched = ctx->ax;
	return 0;
}

/* What chansend and chanrecv have in common: the channel is their first argument. */
static __always_inline void enter_channel(struct pt_regs *ctx)
{
	if (watched && ctx->ax == watched)
		count(current_segment, COUNTER_chan_in_ax);
	if (watched && ctx->di == watched)
		count(current_segment, COUNTER_chan_in_di);
	if (ctx->ax && is_held(ctx->ax + hchan_lock_offset))
		count(current_segment, COUNTER_chan_entry_held);
}

/* func chansend(c *hchan, ep unsafe.Pointer, block bool, callerpc uintptr) bool */
SEC("uprobe/go_chan_send")
int go_chan_send(struct pt_regs *ctx)
{
	if (!is_target())
		return 0;
	hit();
	enter_channel(ctx);
	count(current_segment, ctx->cx & 0xff ? COUNTER_chan_send : COUNTER_chan_send_try);
	return 0;
}

/* func chanrecv(c *hchan, ep unsafe.Pointer, block bool) (selected, received bool) */
SEC("uprobe/go_chan_recv")
int go_chan_recv(struct pt_regs *ctx)
{
	if (!is_target())
		return 0;
	hit();
	enter_channel(ctx);
	count(current_segment, ctx->cx & 0xff ? COUNTER_chan_recv : COUNTER_chan_recv_try);
	return 0;
}

/* func selectgo(cas0 *scase, order0 *uint16, pc0 *uintptr, nsends, nrecvs int, block bool) (int, bool) */
SEC("uprobe/go_select")
int go_select(struct pt_regs *ctx)
{
	if (!is_target())
		return 0;
	hit();
	count(current_segment, ctx->r8 & 0xff ? COUNTER_select : COUNTER_select_try);
	return 0;
}

/* func send(c *hchan, sg *sudog, ep unsafe.Pointer, unlockf func(), skip int) */
SEC("uprobe/go_handoff_send")
int go_handoff_send(struct pt_regs *ctx)
{
	if (!is_target())
		return 0;
	hit();
	count(current_segment, COUNTER_handoff_send);
	return 0;
}

/* func recv(c *hchan, sg *sudog, ep unsafe.Pointer, unlockf func(), skip int) */
SEC("uprobe/go_handoff_recv")
int go_handoff_recv(struct pt_regs *ctx)
{
	if (!is_target())
		return 0;
	hit();
	count(current_segment, COUNTER_handoff_recv);
	return 0;
}

/* func lock2(l *mutex): lock of the runtime's own; its caller is at the top of the stack. */
SEC("uprobe/go_lock2")
int go_lock2(struct pt_regs *ctx)
{
	u32 tid = bpf_get_current_pid_tgid();
	u64 lock = ctx->ax;
	u64 caller;

	if (!is_target())
		return 0;
	hit();
	caller = word(ctx->sp);
	if (in_range(caller, range_chansend_start, range_chansend_end) ||
	    in_range(caller, range_chanrecv_start, range_chanrecv_end) ||
	    in_range(caller, range_closechan_start, range_closechan_end) ||
	    in_range(caller, range_selectgo_start, range_selectgo_end) ||
	    in_range(caller, range_sellock_start, range_sellock_end)) {
		count(current_segment, COUNTER_chan_lock);
		lock |= CHANNEL_LOCK;
	}
	if (put(&last_lock, &tid, &lock, BPF_ANY))
		lost(LOSS_map_full);
	return 0;
}

/* Whether lock2 is among the nearest callers: it calls futexsleep itself, from Go 1.24 on through semasleep.
 */
static __always_inline int called_by_lock2(struct pt_regs *ctx)
{
	int found = in_range(word(ctx->sp), range_lock2_start, range_lock2_end);
	u64 frame[2] = {ctx->bp, 0};

#pragma clang loop unroll(full)
	for (int i = 0; i < 3; i++) {
		/* The end of the chain, or what is none, is no caller; nothing is lost by it. */
		if (found || !frame[0] || bpf_probe_read_user(frame, sizeof(frame), (void *)frame[0]))
			frame[0] = 0;
		else
			found = in_range(frame[1], range_lock2_start, range_lock2_end);
	}
	return found;
}

/* A thread sleeps for the lock of that channel, in the goroutine that it runs. */
static __always_inline void sleep_for_channel(struct pt_regs *ctx, u64 channel)
{
	struct goroutine_key key;
	struct event *event;

	count(current_segment, COUNTER_chan_lock_sleep);
	if (!goroutine(ctx->r14, &key))
		return;
	event = new_event(KIND_LOCK_SLEEP, key.goid);
	if (event) {
		event->address = channel;
		event->stack = keep_stack(ctx);
		submit(event);
	}
}

/* func futexsleep(addr *uint32, val uint32, ns int64) */
SEC("uprobe/go_futex_sleep")
int go_futex_sleep(struct pt_regs *ctx)
{
	u32 tid = bpf_get_current_pid_tgid();
	u64 *lock;

	if (!is_target())
		return 0;
	hit();
	count(current_segment, COUNTER_futex_sleep);
	if (!called_by_lock2(ctx))
		return 0;
	count(current_segment, COUNTER_lock_sleep);
	lock = bpf_map_lookup_elem(&last_lock, &tid);
	if (!lock)
		lost(LOSS_address_unknown);
	else if (*lock & CHANNEL_LOCK)
		sleep_for_channel(ctx, (*lock & ~CHANNEL_LOCK) - hchan_lock_offset);
	return 0;
}

#endif
