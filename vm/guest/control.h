/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The conversation with the host on the second serial port, or through a login that runs CONTROL_NAME: one line each
 * way.
 *
 *     guest:  READY <uname -r>
 *     host:   resume <CLOCK_REALTIME in ns> <64 hexadecimal digits of entropy>
 *     guest:  OK
 *     host:   settle
 *     guest:  OK                    (no SSH connection is left, disks are written)
 *     host:   poweroff
 *
 * A saved machine has the clock and the random state of the moment it was saved. "resume" sets the one and renews the
 * other before anything else runs, so that two machines restored from one state do not draw the same numbers.
 */
#ifndef KMLAB_CONTROL_H
#define KMLAB_CONTROL_H

#include "sys.h"

#define CONTROL_DEVICE "/dev/ttyS1"
#define CONTROL_NAME "/run/kmlab/control"
#define DRAIN_NAME "kmlab-drain"
#define ENTROPY_BYTES 32

enum { TCGETS = 0x5401, TCSETS = 0x5402, RNDADDENTROPY = 0x40085203, RNDRESEEDCRNG = 0x5207, CLOCK_REALTIME = 0 };
enum { ECHO_OR_CANONICAL_OR_SIGNALS = 010 | 02 | 01, TERMIOS_SIZE = 36 };

static int control_fd;
static char buffer[65536], command_line[4096];

static void power_off(void);

/* No echo, no translation: struct termios is iflag, oflag, cflag, lflag (4 bytes each), line, cc[19]. */
static void make_raw(int fd) {
    u32 termios[TERMIOS_SIZE / 4 + 1];
    if (CALL3(SYS_IOCTL, fd, TCGETS, termios) < 0)
        return;
    termios[0] = 0;
    termios[1] = 0;
    termios[3] &= ~(u32)ECHO_OR_CANONICAL_OR_SIGNALS;
    CALL3(SYS_IOCTL, fd, TCSETS, termios);
}

static int hexadecimal(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

enum { TCP_LISTEN = 0x0a, TCP_TIME_WAIT = 0x06, ANY_BUT_LISTEN = -1, SETTLE_TRIES = 2000 };

/*
 * How many sockets of local port 22 (0016) are in a state. A line of /proc/net/tcp (net/ipv4/tcp_ipv4.c,
 * get_tcp4_sock): "   0: 00000000:0016 00000000:0000 0A ..." - number, local and remote address with port, state, all
 * in hexadecimal.
 */
static int ssh_sockets(int wanted) {
    const char *line = buffer;
    int count = 0;
    if (read_file("/proc/net/tcp", buffer, sizeof buffer) < 0)
        return -1;
    while ((line = find(line, ":0016 "))) {
        const char *state = find(line + 6, " ");
        int is;
        if (!state)
            break;
        is = hexadecimal(state[1]) << 4 | hexadecimal(state[2]);
        count += wanted == ANY_BUT_LISTEN ? is != TCP_LISTEN && is != TCP_TIME_WAIT : is == wanted;
        line = state;
    }
    return count;
}

/* Waits until sshd has no connection, then writes all disks: the moment to save the machine's state. */
static long settle(void) {
    for (int tries = 0; ssh_sockets(ANY_BUT_LISTEN) > 0; tries++) {
        if (tries == SETTLE_TRIES)
            return -110; /* ETIMEDOUT */
        sleep_milliseconds(5);
    }
    sleep_milliseconds(50); /* the session's last process ends after its socket */
    CALL0(SYS_SYNC);
    return 0;
}

/*
 * Before 5.18 the numbers behind address layout and stack canaries come from a batch per CPU (drivers/char/random.c,
 * batched_entropy_u64: 8 numbers, batched_entropy_u32: 16) that a reseed leaves as it is. A program start takes at
 * least four of the first and two of the second: eight on each CPU use up what was saved.
 */
static void drain_batches(void) {
    static char *const arguments[] = {DRAIN_NAME, 0};
    static char *const nothing[] = {0};
    for (u64 cpu = 0; cpu < 64; cpu++) {
        u64 mask = 1UL << cpu;
        if (CALL3(SYS_SCHED_SETAFFINITY, 0, sizeof mask, &mask) < 0)
            continue;
        for (int i = 0; i < 8; i++) {
            long child = CALL0(SYS_FORK);
            if (child == 0) {
                CALL3(SYS_EXECVE, "/run/kmlab/init", arguments, nothing);
                CALL1(SYS_EXIT, 1);
            }
            CALL4(SYS_WAIT4, child, 0, 0, 0);
        }
    }
    u64 all = ~0UL;
    CALL3(SYS_SCHED_SETAFFINITY, 0, sizeof all, &all);
}

/* Credits and mixes in the host's entropy, then makes the kernel use it at once. */
static long reseed(const char *digits) {
    struct {
        int bits, bytes;
        u8 data[ENTROPY_BYTES];
    } pool = {ENTROPY_BYTES * 8, ENTROPY_BYTES, {0}};
    long error;
    int fd;
    for (int i = 0; i < ENTROPY_BYTES; i++) {
        int high = hexadecimal(digits[2 * i]);
        int low = high < 0 ? -1 : hexadecimal(digits[2 * i + 1]);
        if (low < 0)
            return -22;
        pool.data[i] = (u8)(high << 4 | low);
    }
    fd = (int)CALL3(SYS_OPEN, "/dev/urandom", O_RDWR, 0);
    if (fd < 0)
        return fd;
    error = CALL3(SYS_IOCTL, fd, RNDADDENTROPY, &pool);
    if (error >= 0)
        error = CALL3(SYS_IOCTL, fd, RNDRESEEDCRNG, 0);
    CALL1(SYS_CLOSE, fd);
    return error;
}

static long resume(const char *line, int old_random) {
    struct timespec now;
    u64 nanoseconds = 0;
    long error;
    while (*line >= '0' && *line <= '9')
        nanoseconds = nanoseconds * 10 + (u64)(*line++ - '0');
    if (*line++ != ' ')
        return -22;
    now.seconds = (long)(nanoseconds / 1000000000);
    now.nanoseconds = (long)(nanoseconds % 1000000000);
    error = CALL2(SYS_CLOCK_SETTIME, CLOCK_REALTIME, &now);
    if (error >= 0)
        error = reseed(line);
    if (error >= 0 && old_random)
        drain_batches();
    return error;
}

static void answer(const char *line, int old_random) {
    char digits[20];
    long error = -22; /* EINVAL */
    if (starts_with(line, "poweroff"))
        power_off();
    if (starts_with(line, "settle"))
        error = settle();
    if (starts_with(line, "resume "))
        error = resume(line + 7, old_random);
    if (error >= 0) {
        print(control_fd, "OK\n");
        return;
    }
    print(control_fd, "ERROR ");
    CALL3(SYS_WRITE, control_fd, digits, decimal((u64)-error, digits));
    print(control_fd, "\n");
}

/* Answers what is read from one descriptor on another, until there is no more to read. */
static void answer_host(int from, int to) {
    static char name[6 * 65], line[256];
    const char *release = name + 2 * 65; /* struct new_utsname: sysname, nodename, release, … of 65 bytes */
    u64 used = 0;
    control_fd = to;
    CALL1(SYS_UNAME, name);
    print(control_fd, "READY ");
    print(control_fd, release);
    print(control_fd, "\n");
    for (;;) {
        long n = CALL3(SYS_READ, from, line + used, 1);
        if (n < 0)
            CALL1(SYS_EXIT, 1);
        if (n == 0) {
            if (from == to)
                continue; /* a serial port that nobody has opened on the other side */
            CALL1(SYS_EXIT, 0);
        }
        if (line[used] != '\n') {
            used = used + 1 < sizeof line ? used + 1 : 0;
            continue;
        }
        line[used] = 0;
        used = 0;
        answer(line, starts_with(release, "5."));
    }
}

static void answer_device(void) {
    int fd = (int)CALL3(SYS_OPEN, CONTROL_DEVICE, O_RDWR | O_NOCTTY, 0);
    if (fd < 0)
        CALL1(SYS_EXIT, 1);
    make_raw(fd);
    answer_host(fd, fd);
}

#endif
