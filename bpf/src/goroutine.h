// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0)
/* Goroutines begin and end. */
#ifndef KMLAB_GOROUTINE_H
#define KMLAB_GOROUTINE_H

#include "sched.h"

/*
 * The end of func newproc1(fn *funcval, callergp *g, callerpc uintptr, ...) *g, with its result in RAX:
 * before 1.24 the id is set late, so that only the end is early enough. It runs on g0, whose stack says
 * nothing of the go statement; but the new g holds its function and the address after the go statement, and
 * these two are the stack that is kept.
 */
SEC("uprobe/go_created")
int go_created(struct pt_regs *ctx)
{
	struct stack stack = {.depth = 2};
	struct goroutine_key key;
	struct event *event;
	u64 now = bpf_ktime_get_ns();

	if (!is_target())
		return 0;
	hit();
	count(current_segment, COUNTER_created);
	if (!goroutine(ctx->ax, &key))
		return 0;
	if (put(&alive, &key, &now, BPF_ANY))
		lost(LOSS_map_full);
	stack.ip[0] = word(ctx->ax + start_pc_offset);
	stack.ip[1] = word(ctx->ax + go_pc_offset);
	event = new_event(KIND_CREATE, key.goid);
	if (!event)
		return 0;
	event->value = word(ctx->ax + parent_goid_offset);
	event->stack = keep(&stack);
	submit(event);
	return 0;
}

/* func gdestroy(gp *g), before 1.22 goexit0(gp *g), on g0. */
SEC("uprobe/go_ended")
int go_ended(struct pt_regs *ctx)
{
	struct goroutine_key key;
	struct event *event;
	u64 *created;

	if (!is_target())
		return 0;
	hit();
	end_run(RAN_exited);
	count(current_segment, COUNTER_ended);
	if (!goroutine(ctx->ax, &key))
		return 0;
	created = bpf_map_lookup_elem(&alive, &key);
	event = new_event(KIND_END, key.goid);
	if (event) {
		if (created)
			event->duration_ns = event->start_ns - *created;
		submit(event);
	}
	if (created && drop(&alive, &key))
		lost(LOSS_map_full);
	return 0;
}

/* func gopanic(e any) */
SEC("uprobe/go_panic")
int go_panic(struct pt_regs *ctx)
{
	struct goroutine_key key;
	struct event *event;

	if (!is_target())
		return 0;
	hit();
	count(current_segment, COUNTER_panics);
	if (!goroutine(ctx->r14, &key))
		return 0;
	event = new_event(KIND_PANIC, key.goid);
	if (event) {
		event->stack = keep_stack(ctx);
		submit(event);
	}
	return 0;
}

#endif
