// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0)
/* Contexts: cancellation. The close of a done channel is a closechan (channel.h). */
#ifndef KMLAB_CONTEXT_H
#define KMLAB_CONTEXT_H

#include "probe.h"

/* func (c *cancelCtx) cancel(removeFromParent bool, err, cause error) */
SEC("uprobe/go_cancel")
int go_cancel(struct pt_regs *ctx)
{
	struct goroutine_key key;
	struct event *event;
	u64 children;

	if (!is_target())
		return 0;
	hit();
	count(current_segment, COUNTER_cancel);
	if (!goroutine(ctx->r14, &key))
		return 0;
	event = new_event(KIND_CANCEL, key.goid);
	if (!event)
		return 0;
	event->address = ctx->ax;
	/* done is an atomic.Value, an interface: the second word of one that holds a channel is the channel.
	 */
	event->object = word(ctx->ax + ctx_done_offset + 8);
	/* children is a map; the first word of Go's maps, old (count int) and new (used uint64), is its
	 * length. */
	children = word(ctx->ax + ctx_children_offset);
	event->value = children ? word(children) : 0;
	event->reason = ctx->bx & 0xff;
	event->stack = keep_stack(ctx);
	submit(event);
	return 0;
}

#endif
