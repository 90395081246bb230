// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0)
/* Contexts: cancellation; and the close of a channel, which tells whether a cancellation does it. */
#ifndef KMLAB_CONTEXT_H
#define KMLAB_CONTEXT_H

#include "probe.h"

/*
 * A word of an object on the target's heap, 0 where its page is not there, which is no loss. Go takes memory
 * from the kernel zeroed and does not write zeros again: a context that nobody waited for, at the end of what
 * was allocated, can lie in part on a page that was never written and so does not exist yet; it will read as
 * zero. Nothing else takes pages away: there is no swap in these machines, and the target has no huge pages
 * (loader, withoutHugePages). In a segment the workload knows each field that is read so.
 */
static __always_inline u64 word_if_there(u64 address)
{
	u64 value = 0;

	if (bpf_probe_read_user(&value, sizeof(value), (void *)address))
		return 0;
	return value;
}

/* func (c *cancelCtx) cancel(removeFromParent bool, err, cause error) */
SEC("uprobe/go_cancel")
int go_cancel(struct pt_regs *ctx)
{
	struct goroutine_key key;
	struct event *event;
	u64 context = ctx->ax;
	u64 children;

	if (!is_target())
		return 0;
	hit();
	count(current_segment, COUNTER_cancel);
	if (!goroutine(ctx->r14, &key))
		return 0;
	if (put(&cancelling, &key, &context, BPF_ANY))
		lost(LOSS_map_full);
	event = new_event(KIND_CANCEL, key.goid);
	if (!event)
		return 0;
	event->address = context;
	/* done is an atomic.Value, an interface: the second word of one that holds a channel is the channel.
	 */
	event->object = word_if_there(context + ctx_done_offset + 8);
	/* children is a map; the first word of Go's maps, old (count int) and new (used uint64), is its
	 * length. */
	children = word_if_there(context + ctx_children_offset);
	event->value = children ? word(children) : 0;
	event->reason = ctx->bx & 0xff;
	event->stack = keep_stack(ctx);
	submit(event);
	return 0;
}

/*
 * Fills in which context a close belongs to. cancel closes its own done channel before it cancels a child, so
 * that the context which the goroutine last began to cancel is the one, or the close is of another channel.
 */
static __always_inline void find_context(struct goroutine_key *key, struct event *event)
{
	u64 *context = bpf_map_lookup_elem(&cancelling, key);

	if (!context || word_if_there(*context + ctx_done_offset + 8) != event->address)
		return;
	event->object = *context;
	/* mutexLocked is bit 0 of the state, the mutex's first field (sync/mutex.go). err is an interface,
	 * from Go 1.25 on inside an atomic.Value, which is laid out like one: its type comes first. */
	if (word_if_there(*context + ctx_mu_offset) & 1)
		event->value |= CONTEXT_LOCKED;
	if (word_if_there(*context + ctx_err_offset))
		event->value |= CONTEXT_MARKED;
}

/* func closechan(c *hchan) */
SEC("uprobe/go_close")
int go_close(struct pt_regs *ctx)
{
	struct goroutine_key key;
	struct event *event;

	if (!is_target())
		return 0;
	hit();
	count(current_segment, COUNTER_close);
	if (!goroutine(ctx->r14, &key))
		return 0;
	event = new_event(KIND_CLOSE, key.goid);
	if (event) {
		event->address = ctx->ax;
		find_context(&key, event);
		event->stack = keep_stack(ctx);
		submit(event);
	}
	return 0;
}

#endif
