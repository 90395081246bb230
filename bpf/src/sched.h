// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0)
/* Go's scheduler: goroutines park, become ready, run, are preempted and stolen. */
#ifndef KMLAB_SCHED_H
#define KMLAB_SCHED_H

#include "hchan.h"
#include "sync.h"

/* Ends the stretch that a thread runs, if one is known, and records it. */
static __always_inline void end_run(u8 how)
{
	u32 tid = bpf_get_current_pid_tgid();
	struct running *running;
	struct event *event;

	if (!want_runs)
		return;
	running = bpf_map_lookup_elem(&on_thread, &tid);
	if (!running || !running->goid)
		return;
	event = new_event(KIND_RUN, running->goid);
	if (event) {
		event->duration_ns = event->start_ns - running->start_ns;
		event->start_ns = running->start_ns;
		event->object = running->latency_ns;
		event->value = running->proc;
		event->segment = running->segment;
		event->reason = how;
		submit(event);
	}
	running->goid = 0;
}

/* Begins one: the goroutine of that key on the P of the thread's M. R14 is its g0 or the goroutine. */
static __always_inline void begin_run(struct pt_regs *ctx, struct goroutine_key *key, u64 now)
{
	u32 tid = bpf_get_current_pid_tgid();
	struct running running = {.start_ns = now, .goid = key->goid, .segment = current_segment};
	u64 *ready = bpf_map_lookup_elem(&made_ready, key);
	u32 *thread;

	/* type p struct { id int32; ...: the first field in every version (runtime/runtime2.go). */
	running.proc = word(word(word(ctx->r14 + g_m_offset) + m_p_offset));
	if (ready) {
		running.latency_ns = now - *ready;
		if (drop(&made_ready, key))
			lost(LOSS_map_full);
	}
	thread = bpf_map_lookup_elem(&thread_of_p, &running.proc);
	if (thread) {
		if (*thread && *thread != tid)
			count(running.segment, COUNTER_p_moved);
		*thread = tid;
	}
	if (put(&on_thread, &tid, &running, BPF_ANY))
		lost(LOSS_map_full);
}

/* Which object a goroutine parks on: its lock, its channel, or what gopark was given. */
static __always_inline void find_object(struct pt_regs *ctx, struct goroutine_key *key, struct park *park)
{
	if (want_locks && is_lock_reason(park->reason))
		find_lock(key, park);
	else if (park->reason == reason_chan_send || park->reason == reason_chan_receive) {
		/* chansend and chanrecv hand over &c.lock (runtime/chan.go). */
		park->address = ctx->bx - hchan_lock_offset;
		if (want_channels)
			look_at_channel(ctx->bx,
					park->address + (park->reason == reason_chan_send
							     ? hchan_sendq_offset
							     : hchan_recvq_offset),
					ctx->r14);
	} else
		park->address = ctx->bx;
}

/* func gopark(unlockf, lock unsafe.Pointer, reason waitReason, traceReason traceBlockReason, traceskip int)
 */
SEC("uprobe/go_park")
int go_park(struct pt_regs *ctx)
{
	struct goroutine_key key;
	struct park park = {.segment = current_segment, .reason = ctx->cx};

	if (!is_target())
		return 0;
	hit();
	end_run(park.reason);
	count_reason(park.segment, park.reason);
	if (is_lock_reason(park.reason))
		count(park.segment, park.reason == reason_mutex		 ? COUNTER_park_mutex
				    : park.reason == reason_rwmutex_read ? COUNTER_park_rw_reader
									 : COUNTER_park_rw_writer);
	if (park.reason >= REASONS || !(recorded_reasons >> park.reason & 1)) {
		count(park.segment, COUNTER_park_other);
		return 0;
	}
	if (!goroutine(ctx->r14, &key))
		return 0;
	find_object(ctx, &key, &park);
	park.stack = keep_stack(ctx);
	park.start_ns = bpf_ktime_get_ns();
	if (bpf_map_lookup_elem(&parked, &key))
		lost(LOSS_expired);
	if (put(&parked, &key, &park, BPF_ANY))
		lost(LOSS_map_full);
	return 0;
}

static __always_inline void remember_thread(void)
{
	u32 tid = bpf_get_current_pid_tgid();
	u64 now;

	if (bpf_map_lookup_elem(&threads, &tid))
		return;
	now = bpf_ktime_get_ns();
	if (put(&threads, &tid, &now, BPF_ANY))
		lost(LOSS_map_full);
}

/* Ends the recorded park of a goroutine, if it has one. */
static __always_inline void end_park(struct goroutine_key *key, u64 now)
{
	struct park *park = bpf_map_lookup_elem(&parked, key);
	struct event *event;

	if (!park)
		return;
	count(park->segment, COUNTER_resumed);
	if (park->semaphore)
		wait_on(park->semaphore, -1);
	event = new_event(KIND_PARK, key->goid);
	if (event) {
		event->start_ns = park->start_ns;
		event->duration_ns = now - park->start_ns;
		event->address = park->address;
		event->stack = park->stack;
		event->segment = park->segment;
		event->reason = park->reason;
		submit(event);
	}
	if (drop(&parked, key))
		lost(LOSS_map_full);
}

/* func execute(gp *g, inheritTime bool), on g0: R14 is g0, the goroutine is the argument. */
SEC("uprobe/go_execute")
int go_execute(struct pt_regs *ctx)
{
	struct goroutine_key key;
	u64 now = bpf_ktime_get_ns();

	if (!is_target())
		return 0;
	hit();
	if (!execute_ip)
		execute_ip = ctx->ip;
	remember_thread();
	count(current_segment, COUNTER_execute);
	if (ctx->bx & 0xff)
		count(current_segment, COUNTER_runnext);
	if (!goroutine(ctx->ax, &key))
		return 0;
	if (want_runs) {
		end_run(RAN_superseded);
		begin_run(ctx, &key, now);
	}
	end_park(&key, now);
	return 0;
}

/* func ready(gp *g, traceskip int, next bool) */
SEC("uprobe/go_ready")
int go_ready(struct pt_regs *ctx)
{
	struct goroutine_key key;
	u64 now = bpf_ktime_get_ns();

	if (!is_target())
		return 0;
	hit();
	count(current_segment, COUNTER_ready);
	if (want_runs && goroutine(ctx->ax, &key) && put(&made_ready, &key, &now, BPF_ANY))
		lost(LOSS_map_full);
	return 0;
}

/* func goschedImpl(gp *g, preempted bool), Go 1.22 and newer: both ways back to the global queue. */
SEC("uprobe/go_gosched")
int go_gosched(struct pt_regs *ctx)
{
	int preempted = ctx->bx & 0xff;

	if (!is_target())
		return 0;
	hit();
	end_run(preempted ? RAN_preempted : RAN_yielded);
	count(current_segment, preempted ? COUNTER_preempt : COUNTER_yield);
	return 0;
}

/* func gopreempt_m(gp *g), Go 1.21. */
SEC("uprobe/go_preempt")
int go_preempt(struct pt_regs *ctx)
{
	if (!is_target())
		return 0;
	hit();
	end_run(RAN_preempted);
	count(current_segment, COUNTER_preempt);
	return 0;
}

/* func gosched_m(gp *g), Go 1.21. */
SEC("uprobe/go_yield")
int go_yield(struct pt_regs *ctx)
{
	if (!is_target())
		return 0;
	hit();
	end_run(RAN_yielded);
	count(current_segment, COUNTER_yield);
	return 0;
}

/* func goyield_m(gp *g) */
SEC("uprobe/go_goyield")
int go_goyield(struct pt_regs *ctx)
{
	if (!is_target())
		return 0;
	hit();
	end_run(RAN_yielded);
	count(current_segment, COUNTER_goyield);
	return 0;
}

/* A RET of func runqsteal(pp, p2 *p, stealRunNextG bool) *g */
SEC("uprobe/go_stolen")
int go_stolen(struct pt_regs *ctx)
{
	struct goroutine_key key;
	struct event *event;

	if (!is_target())
		return 0;
	hit();
	count(current_segment, COUNTER_steal_tries);
	if (!ctx->ax)
		return 0;
	count(current_segment, COUNTER_stolen);
	if (!want_runs || !goroutine(ctx->ax, &key))
		return 0;
	event = new_event(KIND_STEAL, key.goid);
	if (event)
		submit(event);
	return 0;
}

/* A RET of func globrunqget(pp *p, max int32) *g, from Go 1.25 on globrunqgetbatch(n int32) (gp *g, q
 * gQueue). */
SEC("uprobe/go_global_got")
int go_global_got(struct pt_regs *ctx)
{
	if (!is_target())
		return 0;
	hit();
	if (ctx->ax)
		count(current_segment, COUNTER_global_got);
	return 0;
}

/* func handoffp(pp *p) */
SEC("uprobe/go_handoff_p")
int go_handoff_p(struct pt_regs *ctx)
{
	if (!is_target())
		return 0;
	hit();
	count(current_segment, COUNTER_handoff_p);
	return 0;
}

/* func runqput(pp *p, gp *g, next bool) */
SEC("uprobe/go_local_put")
int go_local_put(struct pt_regs *ctx)
{
	if (!is_target())
		return 0;
	hit();
	count(current_segment, COUNTER_local_put);
	return 0;
}

/* func runqputslow(pp *p, gp *g, h, t uint32) bool */
SEC("uprobe/go_local_overflow")
int go_local_overflow(struct pt_regs *ctx)
{
	if (!is_target())
		return 0;
	hit();
	count(current_segment, COUNTER_local_overflow);
	return 0;
}

/* func entersyscall(): what the runtime itself asks of the kernel (futex, epoll) does not come by here. */
SEC("uprobe/go_enter_syscall")
int go_enter_syscall(struct pt_regs *ctx)
{
	if (!is_target())
		return 0;
	hit();
	end_run(RAN_syscall);
	count(current_segment, COUNTER_enter_syscall);
	return 0;
}

/*
 * A RET of func exitsyscall(), on the goroutine's own stack. Where it had to wait for a P, execute has begun
 * the run; where it kept its P or got another at once, nothing else says that it goes on.
 */
SEC("uprobe/go_exit_syscall")
int go_exit_syscall(struct pt_regs *ctx)
{
	u32 tid = bpf_get_current_pid_tgid();
	struct goroutine_key key;
	struct running *running;
	u64 now = bpf_ktime_get_ns();

	if (!is_target())
		return 0;
	hit();
	if (!want_runs || !goroutine(ctx->r14, &key))
		return 0;
	running = bpf_map_lookup_elem(&on_thread, &tid);
	if (!running || running->goid != key.goid)
		begin_run(ctx, &key, now);
	return 0;
}

#endif
