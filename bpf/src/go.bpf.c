// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0)
/*
 * Programs on Go's runtime and on the kernel beside it. One program per event: bpf_cookie, which could tell
 * several probes of one program apart, needs 5.15. Helpers are those of 5.8 (ring buffer) and older.
 *
 * Arguments follow Go's ABIInternal on amd64: RAX, RBX, RCX, RDI, RSI, R8; the current g is in R14. A probe
 * sits on the pp point (the push of the frame pointer after the stack check), where all of them are intact.
 */
#include "sync.h"
#include "sched.h"
#include "goroutine.h"
#include "channel.h"
#include "context.h"
#include "defer.h"
#include "memory.h"

/* What the kernel is told: its list of licences that may use every helper has no Apache-2.0. */
char LICENSE[] SEC("license") = "GPL";

/* Types that only the loader needs by name: a variable keeps each in the object's type information. */
struct event *type_of_event;
enum kind type_of_kind;
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
	has_segments = 1;
	count(segment, COUNTER_marks);
	return 0;
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

/* raw_syscalls:sys_enter, of every system call. */
SEC("raw_tp/sys_enter")
int syscall_enter(struct bpf_raw_tracepoint_args *ctx)
{
	if (!is_target() || !execute_ip)
		return 0;
	hit();
	count(current_segment, COUNTER_syscall);
	return 0;
}

/* Calibration: what every counting program does, and nothing else. */
static __always_inline int calibrate(struct pt_regs *ctx)
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
	return calibrate(ctx);
}

SEC("uprobe/cal_entry")
int cal_entry(struct pt_regs *ctx)
{
	return calibrate(ctx);
}

SEC("uprobe/cal_ret")
int cal_ret(struct pt_regs *ctx)
{
	return calibrate(ctx);
}
