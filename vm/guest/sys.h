/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a freestanding program needs of x86-64 Linux: system calls and a few string functions.
 *
 * There is no C library: the program must be a few kilobytes, static, and the same bytes wherever it is built. Numbers
 * and layouts are the kernel's user interface (include/uapi, arch/x86/entry/syscalls/syscall_64.tbl), which never
 * changes.
 */
#ifndef KMLAB_SYS_H
#define KMLAB_SYS_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;

enum syscall_number {
    SYS_READ = 0,
    SYS_WRITE = 1,
    SYS_OPEN = 2,
    SYS_CLOSE = 3,
    SYS_IOCTL = 16,
    SYS_NANOSLEEP = 35,
    SYS_DUP2 = 33,
    SYS_SOCKET = 41,
    SYS_FORK = 57,
    SYS_EXECVE = 59,
    SYS_EXIT = 60,
    SYS_WAIT4 = 61,
    SYS_UNAME = 63,
    SYS_CHDIR = 80,
    SYS_MKDIR = 83,
    SYS_UNLINK = 87,
    SYS_SYMLINK = 88,
    SYS_CHMOD = 90,
    SYS_SETSID = 112,
    SYS_SETRLIMIT = 160,
    SYS_CHROOT = 161,
    SYS_SYNC = 162,
    SYS_MOUNT = 165,
    SYS_REBOOT = 169,
    SYS_SETHOSTNAME = 170,
    SYS_SCHED_SETAFFINITY = 203,
    SYS_CLOCK_SETTIME = 227,
    SYS_FINIT_MODULE = 313,
};

static inline long call6(long n, long a, long b, long c, long d, long e, long f) {
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

#define CALL0(n) call6(n, 0, 0, 0, 0, 0, 0)
#define CALL1(n, a) call6(n, (long)(a), 0, 0, 0, 0, 0)
#define CALL2(n, a, b) call6(n, (long)(a), (long)(b), 0, 0, 0, 0)
#define CALL3(n, a, b, c) call6(n, (long)(a), (long)(b), (long)(c), 0, 0, 0)
#define CALL4(n, a, b, c, d) call6(n, (long)(a), (long)(b), (long)(c), (long)(d), 0, 0)
#define CALL5(n, a, b, c, d, e) call6(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), 0)

enum { O_RDONLY = 0, O_WRONLY = 1, O_RDWR = 2, O_CREAT = 0100, O_NOCTTY = 0400, O_TRUNC = 01000 };

struct timespec {
    long seconds;
    long nanoseconds;
};

/* The compiler may call these by itself, whatever the source says. */
void *memcpy(void *to, const void *from, u64 size) {
    u8 *t = to;
    const u8 *f = from;
    while (size--)
        *t++ = *f++;
    return to;
}

void *memset(void *to, int value, u64 size) {
    u8 *t = to;
    while (size--)
        *t++ = (u8)value;
    return to;
}

static u64 length(const char *text) {
    u64 n = 0;
    while (text[n])
        n++;
    return n;
}

static int starts_with(const char *text, const char *prefix) {
    while (*prefix)
        if (*text++ != *prefix++)
            return 0;
    return 1;
}

static const char *find(const char *text, const char *needle) {
    for (; *text; text++)
        if (starts_with(text, needle))
            return text;
    return 0;
}

/* Decimal digits of value at to, which has room for 20; returns how many. */
static u64 decimal(u64 value, char *to) {
    char reversed[20];
    u64 n = 0, i;
    do
        reversed[n++] = (char)('0' + value % 10);
    while (value /= 10);
    for (i = 0; i < n; i++)
        to[i] = reversed[n - 1 - i];
    return n;
}

static void print(int fd, const char *text) { CALL3(SYS_WRITE, fd, text, length(text)); }

static void sleep_milliseconds(long n) {
    struct timespec time = {n / 1000, n % 1000 * 1000000};
    CALL2(SYS_NANOSLEEP, &time, 0);
}

/* The whole of a small file as a string; its length, or the negative error. */
static long read_file(const char *path, char *to, u64 room) {
    long n, total = 0;
    int fd = (int)CALL3(SYS_OPEN, path, O_RDONLY, 0);
    if (fd < 0)
        return fd;
    while ((u64)total < room - 1 && (n = CALL3(SYS_READ, fd, to + total, room - 1 - (u64)total)) > 0)
        total += n;
    to[total] = 0;
    CALL1(SYS_CLOSE, fd);
    return total;
}

static long write_file(const char *path, const char *from, u64 size, int mode) {
    long n;
    int fd = (int)CALL3(SYS_OPEN, path, O_WRONLY | O_CREAT | O_TRUNC, mode);
    if (fd < 0)
        return fd;
    n = CALL3(SYS_WRITE, fd, from, size);
    CALL1(SYS_CLOSE, fd);
    return n;
}

#endif
