// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0)
/*
 * Programs on Go's runtime and on the kernel beside it. One program per event: bpf_cookie, which could tell
 * several probes of one program apart, needs 5.15. Helpers are those of 5.8 (ring buffer) and older.
 *
 * Arguments follow Go's ABIInternal on amd64: RAX, RBX, RCX, RDI, RSI, R8; the current g is in R14. A probe
 * sits on the pp point (the push of the frame pointer after the stack check), where all of them are intact.
 */
#include "probe.h"

/* What the kernel is told: its list of licences that may use every helper has no Apache-2.0. */
char LICENSE[] SEC("license") = "GPL";

/* Types that only the loader needs by name: a variable keeps each in the object's type information. */
struct park_event *type_of_park_event;
enum counter type_of_counter;
enum loss type_of_loss;

/* func Mark(id int) of the workload. */
SEC("uprobe/go_mark")
int go_mark(struct pt_regs *ctx)
{
	u64 segment = ctx->ax;

	if (!is_target())
		return 0;
	hit();
	if (segment >= SEGMENTS) {
		lost(LOSS_segment_invalid);
		return 0;
	}
	current_segment = segment;
	count(segment, COUNTER_marks);
	return 0;
}

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
	return reason == reason_mutex || reason == reason_rw_reader || reason == reason_rw_writer;
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
	if (goroutine(ctx->r14, &key) && bpf_map_update_elem(&wanted, &key, &semaphore, BPF_ANY))
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
		long error = bpf_map_update_elem(&waiters, &key, &none, BPF_NOEXIST);

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
	u32 offset = park->reason == reason_mutex	? mutex_semaphore_offset
		     : park->reason == reason_rw_reader ? rw_reader_semaphore_offset
							: rw_writer_semaphore_offset;
	u64 *semaphore = bpf_map_lookup_elem(&wanted, key);

	if (!semaphore) {
		lost(LOSS_address_unknown);
		return;
	}
	park->semaphore = *semaphore;
	park->lock = park->semaphore - offset;
	wait_on(park->semaphore, 1);
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
	if (!is_lock_reason(park.reason)) {
		count(park.segment, COUNTER_park_other);
		return 0;
	}
	count(park.segment, park.reason == reason_mutex	      ? COUNTER_park_mutex
			    : park.reason == reason_rw_reader ? COUNTER_park_rw_reader
							      : COUNTER_park_rw_writer);
	if (!goroutine(ctx->r14, &key))
		return 0;
	find_lock(&key, &park);
	park.stack = keep_stack(ctx);
	park.start_ns = bpf_ktime_get_ns();
	if (bpf_map_lookup_elem(&parked, &key))
		lost(LOSS_expired);
	if (bpf_map_update_elem(&parked, &key, &park, BPF_ANY))
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
	if (bpf_map_update_elem(&threads, &tid, &now, BPF_ANY))
		lost(LOSS_map_full);
}

/* func execute(gp *g, inheritTime bool), on g0: R14 is g0, the goroutine is the argument. */
SEC("uprobe/go_execute")
int go_execute(struct pt_regs *ctx)
{
	struct goroutine_key key;
	struct park_event *event;
	struct park *park;
	u64 now = bpf_ktime_get_ns();

	if (!is_target())
		return 0;
	hit();
	if (!execute_ip)
		execute_ip = ctx->ip;
	remember_thread();
	count(current_segment, COUNTER_execute);
	if (!goroutine(ctx->ax, &key))
		return 0;
	park = bpf_map_lookup_elem(&parked, &key);
	if (!park)
		return 0;
	count(park->segment, COUNTER_resumed);
	if (park->semaphore)
		wait_on(park->semaphore, -1);
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (event) {
		event->start_ns = park->start_ns;
		event->duration_ns = now - park->start_ns;
		event->lock = park->lock;
		event->goid = key.goid;
		event->stack = park->stack;
		event->tid = bpf_get_current_pid_tgid();
		event->segment = park->segment;
		event->kind = KIND_PARK;
		event->reason = park->reason;
		/* The loader looks at fixed intervals: a wake-up per event would disturb what is measured. */
		bpf_ringbuf_submit(event, BPF_RB_NO_WAKEUP);
	} else {
		lost(LOSS_ring_full);
	}
	if (bpf_map_delete_elem(&parked, &key))
		lost(LOSS_map_full);
	return 0;
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

#define FUTEX_WAIT	  0
#define FUTEX_WAKE	  1
#define FUTEX_WAIT_BITSET 9
#define FUTEX_WAKE_BITSET 10
/* FUTEX_PRIVATE_FLAG and FUTEX_CLOCK_REALTIME are not part of the command. */
#define FUTEX_COMMAND 127

SEC("tracepoint/syscalls/sys_enter_futex")
int futex(struct sys_enter_args *ctx)
{
	u32 command = ctx->args[1] & FUTEX_COMMAND;

	/* Before the runtime's first goroutine the process is still the loader's. */
	if (!is_target() || !execute_ip)
		return 0;
	hit();
	if (command == FUTEX_WAIT || command == FUTEX_WAIT_BITSET)
		count(current_segment, COUNTER_futex_wait);
	else if (command == FUTEX_WAKE || command == FUTEX_WAKE_BITSET)
		count(current_segment, COUNTER_futex_wake);
	if (is_waited_on(ctx->args[0]))
		count(current_segment, COUNTER_futex_on_lock);
	return 0;
}

/*
 * The tracepoint lies before the switch (__schedule), so the current task is the one that leaves. Its tgid
 * therefore needs no look into task_struct: an object without a relocation loads without parsing the kernel's
 * type information, which takes longer than all the rest (35 of 50 ms; a second and more under emulation).
 */
SEC("raw_tp/sched_switch")
int sched_switch(struct bpf_raw_tracepoint_args *ctx)
{
	if (!is_target() || !execute_ip)
		return 0;
	hit();
	count(current_segment, COUNTER_sched_switch);
	return 0;
}

/* Calibration: what every counting program does, and nothing else. */
static __always_inline int calibrate(void)
{
	if (!is_target())
		return 0;
	hit();
	count(current_segment, COUNTER_slow);
	return 0;
}

SEC("uprobe/cal_pp")
int cal_pp(struct pt_regs *ctx)
{
	return calibrate();
}

SEC("uprobe/cal_entry")
int cal_entry(struct pt_regs *ctx)
{
	return calibrate();
}

SEC("uprobe/cal_ret")
int cal_ret(struct pt_regs *ctx)
{
	return calibrate();
}
