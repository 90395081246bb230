// SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0)
/*
 * The few kernel types and constants that these programs use. A generated vmlinux.h would be three megabytes
 * of one kernel's types; what is below is stable user-space interface: numbers, x86-64 register layout,
 * tracepoint arguments. A program that needs a kernel struct declares the fields it reads with
 * preserve_access_index and reads them through CO-RE relocations.
 */
#ifndef KMLAB_KERNEL_H
#define KMLAB_KERNEL_H

typedef unsigned char __u8;
typedef signed char __s8;
typedef unsigned short __u16;
typedef short __s16;
typedef unsigned int __u32;
typedef int __s32;
typedef unsigned long long __u64;
typedef long long __s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __s32 s32;
typedef __u64 u64;
typedef __s64 s64;

/* include/uapi/linux/bpf.h: enum bpf_map_type and the flags of map updates and of the ring buffer. */
enum bpf_map_type {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PROG_ARRAY = 3,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_RINGBUF = 27,
};

enum {
	BPF_ANY = 0,
	BPF_NOEXIST = 1,
	BPF_RB_NO_WAKEUP = 1,
	BPF_F_NO_PREALLOC = 1,
};

#define ENOENT 2
#define EEXIST 17

/* arch/x86/include/asm/ptrace.h; the layout is that of struct user_regs_struct, fixed for user space. */
struct pt_regs {
	unsigned long r15, r14, r13, r12, bp, bx;
	unsigned long r11, r10, r9, r8, ax, cx, dx, si, di;
	unsigned long orig_ax;
	unsigned long ip, cs, flags, sp, ss;
};

/* Arguments of a raw tracepoint, include/uapi/linux/bpf.h. */
struct bpf_raw_tracepoint_args {
	u64 args[0];
};

/* Arguments of syscalls:sys_enter_*, as their format files in tracefs describe them; same since 4.x. */
struct sys_enter_args {
	u64 common;
	long syscall_nr;
	unsigned long args[6];
};

#endif
