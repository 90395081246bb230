// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0)
/* sync.Mutex and sync.RWMutex: who waits for which lock. */
#ifndef KMLAB_SYNC_H
#define KMLAB_SYNC_H

#include "probe.h"

/* func (m *Mutex) lockSlow() */
SEC("uprobe/go_lock_slow")
int go_lock_slow(struct pt_regs *ctx)
{
	if (!is_target())
		return 0;
	hit();
	count(current_segment, COUNTER_slow);
	return 0;
}

static __always_inline int is_lock_reason(u8 reason)
{
	return reason == reason_mutex || reason == reason_rwmutex_read || reason == reason_rwmutex_write;
}

/* func semacquire1(addr *uint32, lifo bool, profile semaProfileFlags, skipframes int, reason waitReason) */
SEC("uprobe/go_semacquire")
int go_semacquire(struct pt_regs *ctx)
{
	struct goroutine_key key;
	u64 semaphore = ctx->ax;

	if (!is_target())
		return 0;
	hit();
	if (!is_lock_reason(ctx->si))
		return 0;
	count(current_segment, COUNTER_sem);
	if (goroutine(ctx->r14, &key) && put(&wanted, &key, &semaphore, BPF_ANY))
		lost(LOSS_map_full);
	return 0;
}

/* func sync_runtime_SemacquireRWMutexR(addr *uint32, lifo bool, skipframes int) */
SEC("uprobe/go_sem_rw_reader")
int go_sem_rw_reader(struct pt_regs *ctx)
{
	if (!is_target())
		return 0;
	hit();
	count(current_segment, COUNTER_sem_rw_reader);
	return 0;
}

/* func sync_runtime_SemacquireRWMutex(addr *uint32, lifo bool, skipframes int) */
SEC("uprobe/go_sem_rw_writer")
int go_sem_rw_writer(struct pt_regs *ctx)
{
	if (!is_target())
		return 0;
	hit();
	count(current_segment, COUNTER_sem_rw_writer);
	return 0;
}

/* Adds to the number of goroutines parked on a semaphore. */
static __always_inline void wait_on(u64 semaphore, s64 change)
{
	struct address_key key = {.address = semaphore, .tgid = target_tgid};
	s64 none = 0;
	s64 *waiting = bpf_map_lookup_elem(&waiters, &key);

	if (!waiting) {
		int error = put(&waiters, &key, &none, BPF_NOEXIST);

		if (error && error != -EEXIST) {
			lost(LOSS_map_full);
			return;
		}
		waiting = bpf_map_lookup_elem(&waiters, &key);
	}
	if (waiting)
		__sync_fetch_and_add(waiting, change);
	else
		lost(LOSS_map_full);
}

/* Fills in which semaphore, and so which lock, a goroutine parks on. */
static __always_inline void find_lock(struct goroutine_key *key, struct park *park)
{
	u32 offset = park->reason == reason_mutex	   ? mutex_semaphore_offset
		     : park->reason == reason_rwmutex_read ? rw_reader_semaphore_offset
							   : rw_writer_semaphore_offset;
	u64 *semaphore = bpf_map_lookup_elem(&wanted, key);

	if (!semaphore) {
		lost(LOSS_address_unknown);
		return;
	}
	park->semaphore = *semaphore;
	park->address = park->semaphore - offset;
	wait_on(park->semaphore, 1);
}

/* Whether a goroutine of the target is parked on the lock of which that word is the state or the semaphore.
 */
static __always_inline int is_waited_on(u64 word)
{
	struct address_key key = {.address = word, .tgid = target_tgid};
	s64 *waiting = bpf_map_lookup_elem(&waiters, &key);

	if (waiting && *waiting > 0)
		return 1;
	key.address = word + mutex_semaphore_offset;
	waiting = bpf_map_lookup_elem(&waiters, &key);
	return waiting && *waiting > 0;
}

#endif
