// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0)
/* Allocations by site, collections, and pauses of the whole program. */
#ifndef KMLAB_MEMORY_H
#define KMLAB_MEMORY_H

#include "probe.h"

const volatile u64 range_mallocgc_start = 0, range_mallocgc_end = 0;

/* When the world was asked to stop; only one goroutine stops it at a time. */
static u64 stw_start = 0;
static u8 stw_reason = 0;

/*
 * func mallocgc(size uintptr, typ *_type, needzero bool) unsafe.Pointer, and from Go 1.27 on the functions by
 * size class that compiled code calls directly. mallocgc calls those as well: such a hit is its caller's.
 */
SEC("uprobe/go_malloc")
int go_malloc(struct pt_regs *ctx)
{
	struct site_key key = {};
	struct site first = {.count = 1, .bytes = ctx->ax};
	struct site *site;

	if (!is_target())
		return 0;
	hit();
	/* Nothing is allocated for a size of 0: mallocgc gives the address of zerobase. */
	if (!ctx->ax || in_range(word(ctx->sp), range_mallocgc_start, range_mallocgc_end))
		return 0;
	key.segment = current_segment;
	count(key.segment, COUNTER_malloc);
	add(key.segment, COUNTER_malloc_bytes, ctx->ax);
	/* What a workload with segments does between them is its own bookkeeping. */
	if (!key.segment && has_segments)
		return 0;
	key.stack = keep_stack(ctx);
	if (!key.stack)
		return 0;
	site = bpf_map_lookup_elem(&alloc_sites, &key);
	if (!site) {
		int error = put(&alloc_sites, &key, &first, BPF_NOEXIST);

		if (!error)
			return 0;
		site = error == -EEXIST ? bpf_map_lookup_elem(&alloc_sites, &key) : NULL;
	}
	if (!site) {
		lost(LOSS_map_full);
		return 0;
	}
	__sync_fetch_and_add(&site->count, 1);
	__sync_fetch_and_add(&site->bytes, ctx->ax);
	return 0;
}

/* func gcMarkTermination(...) */
SEC("uprobe/go_collection")
int go_collection(struct pt_regs *ctx)
{
	if (!is_target())
		return 0;
	hit();
	count(current_segment, COUNTER_collections);
	return 0;
}

/* func stopTheWorldWithSema(reason stwReason) */
SEC("uprobe/go_stw_begin")
int go_stw_begin(struct pt_regs *ctx)
{
	if (!is_target())
		return 0;
	hit();
	stw_start = bpf_ktime_get_ns();
	stw_reason = ctx->ax;
	count(current_segment, COUNTER_stw);
	return 0;
}

/* func startTheWorldWithSema(...) */
SEC("uprobe/go_stw_end")
int go_stw_end(struct pt_regs *ctx)
{
	u64 began = stw_start;
	struct event *event;

	if (!is_target())
		return 0;
	hit();
	if (!began)
		return 0;
	stw_start = 0;
	event = new_event(KIND_STW, 0);
	if (event) {
		event->duration_ns = event->start_ns - began;
		event->start_ns = began;
		event->reason = stw_reason;
		submit(event);
	}
	return 0;
}

#endif
