/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine's first and lasting process: /init of the initramfs, then process 1 of the base image.
 *
 * One small program without a C library does what would otherwise be an initramfs script, an init system and a dozen
 * programs. Under emulation each program that is started costs 10 to 40 ms, mostly in translating code that runs once.
 *
 *  1. initramfs: loads the virtio modules in the order of /modules/order, mounts base image (vda) and kernel bundle
 *     (vdb), keeps the injected identity (/identity, from a second initramfs) in a tmpfs, and makes the base image the
 *     root. In a box for Vagrant the second initramfs has /box instead: modules of its disks, and /box/start, a script
 *     that gives the machine an address, keys and a name in step 2.
 *  2. base image: kernel file systems, sysctls, network, sshd; tells the host that it is ready.
 *  3. for good: process 1 reaps and keeps sshd running, a child answers the host on the second serial port
 *     (control.h). The saved state of a machine holds that child blocked in read().
 *
 * Options on the kernel's command line: lab.trial (print a marker, power off: does this accelerator run this kernel?),
 * lab.root=DEVICE and lab.bundle=DEVICE (the disks, where they are not vda and vdb).
 */
#include "sys.h"

#include "control.h"

#define IDENTITY "/run/kmlab/identity"
#define BUNDLE "/run/kmlab/bundle"
#define BOX "/run/kmlab/box"

enum { MS_RDONLY = 1, MS_NOSUID = 2, MS_NODEV = 4, MS_NOEXEC = 8, MS_NOATIME = 1024, MS_BIND = 4096, MS_MOVE = 8192 };
enum { AF_INET = 2, SOCK_DGRAM = 2, SIOCSIFFLAGS = 0x8914, SIOCSIFADDR = 0x8916, SIOCSIFNETMASK = 0x891c };
enum { IFF_UP = 1, IFF_RUNNING = 0x40, WNOHANG = 1, RLIMIT_NOFILE = 7, RLIMIT_MEMLOCK = 8 };

/* Whether this is a box for Vagrant: nobody injects an identity, and nobody listens on the second serial port. */
static int boxed;

static void power_off(void) {
    CALL0(SYS_SYNC);
    /* LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_POWER_OFF */
    CALL4(SYS_REBOOT, 0xfee1dead, 672274793, 0x4321fedc, 0);
}

/* Process 1 that ends makes the kernel panic: the words before it say why. */
static void die(const char *what, const char *which, long error) {
    char digits[20];
    print(2, "kmlab init: ");
    print(2, what);
    print(2, " ");
    print(2, which);
    print(2, ": error ");
    CALL3(SYS_WRITE, 2, digits, decimal((u64)-error, digits));
    print(2, "\n");
    CALL1(SYS_EXIT, 1);
}

static void mount(const char *from, const char *to, const char *type, long flags, const char *options) {
    long error = CALL5(SYS_MOUNT, from, to, type, flags, options);
    if (error < 0)
        die("cannot mount", to, error);
}

/* For file systems that a kernel may have been built without. */
static void mount_if_there(const char *type, const char *to, long flags, const char *options) {
    CALL2(SYS_MKDIR, to, 0755);
    CALL5(SYS_MOUNT, type, to, type, flags, options);
}

static void console(void) {
    int fd = (int)CALL3(SYS_OPEN, "/dev/console", O_RDWR | O_NOCTTY, 0);
    for (int i = 0; fd >= 0 && i < 3; i++)
        CALL2(SYS_DUP2, fd, i);
    if (fd > 2)
        CALL1(SYS_CLOSE, fd);
}

/* Loads what a file lists, one path a line, and frees the memory of each module's file. */
static void load_modules(const char *order) {
    char *line = buffer;
    if (read_file(order, buffer, sizeof buffer) < 0)
        return;
    while (*line) {
        char *end = line;
        int fd;
        long error;
        while (*end && *end != '\n')
            end++;
        if (*end)
            *end++ = 0;
        fd = (int)CALL3(SYS_OPEN, line, O_RDONLY, 0);
        error = fd < 0 ? fd : CALL3(SYS_FINIT_MODULE, fd, "", 0);
        if (error < 0)
            die("cannot load module", line, error);
        CALL1(SYS_CLOSE, fd);
        CALL1(SYS_UNLINK, line);
        line = end;
    }
}

/* The disk appears when its driver has probed it: at once, or a moment later. */
static void mount_disk(const char *device, const char *to, long flags) {
    long error = -2;
    for (int tries = 0; tries < 2000; tries++) {
        error = CALL5(SYS_MOUNT, device, to, "ext4", flags, 0);
        if (error != -2 && error != -6) /* ENOENT, ENXIO */
            break;
        sleep_milliseconds(5);
    }
    if (error < 0)
        die("cannot mount disk", device, error);
}

static void keep(const char *from, const char *to, int mode) {
    long n = read_file(from, buffer, sizeof buffer);
    if (n < 0)
        die("no identity file", from, n);
    n = write_file(to, buffer, (u64)n, mode);
    if (n < 0)
        die("cannot write", to, n);
}

static void keep_identity(void) {
    CALL2(SYS_MKDIR, "/root" IDENTITY, 0700);
    keep("/identity/ssh_host_ed25519_key", "/root" IDENTITY "/ssh_host_ed25519_key", 0600);
    keep("/identity/authorized_keys", "/root" IDENTITY "/authorized_keys", 0600);
    keep("/identity/hostname", "/root" IDENTITY "/hostname", 0644);
    CALL1(SYS_UNLINK, "/identity/ssh_host_ed25519_key");
}

static void keep_box(void) {
    CALL2(SYS_MKDIR, "/root" BOX, 0755);
    keep("/box/start", "/root" BOX "/start", 0755);
    keep("/box/dhcp", "/root" BOX "/dhcp", 0755);
    keep("/box/shutdown", "/root" BOX "/shutdown", 0755);
    keep("/box/sshd_config", "/root" BOX "/sshd_config", 0644);
    keep("/box/authorized_keys", "/root" BOX "/authorized_keys", 0644);
    keep("/box/hostname", "/root" BOX "/hostname", 0644);
}

/* The value of an option such as "lab.root=" on the command line, or what it is without. */
static const char *option(const char *name, const char *without, char *to, u64 room) {
    const char *from = find(command_line, name);
    u64 n = 0;
    if (!from)
        return without;
    for (from += length(name); *from > ' ' && n + 1 < room; from++)
        to[n++] = *from;
    to[n] = 0;
    return to;
}

static void enter_base_image(void) {
    static char root[64], bundle[64];
    mount_disk(option("lab.root=", "/dev/vda", root, sizeof root), "/root", MS_NOATIME);
    mount("tmpfs", "/root/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=64m");
    CALL2(SYS_MKDIR, "/root/run/kmlab", 0755);
    CALL2(SYS_MKDIR, "/root" BUNDLE, 0755);
    mount_disk(option("lab.bundle=", "/dev/vdb", bundle, sizeof bundle), "/root" BUNDLE, MS_RDONLY | MS_NOATIME);
    CALL2(SYS_MKDIR, "/root/usr/lib/modules", 0755);
    CALL2(SYS_MKDIR, "/root/usr/src", 0755);
    mount("/root" BUNDLE "/usr/lib/modules", "/root/usr/lib/modules", 0, MS_BIND, 0);
    mount("/root" BUNDLE "/usr/src", "/root/usr/src", 0, MS_BIND, 0);
    if (boxed)
        keep_box();
    else
        keep_identity();
    keep("/init", "/root/run/kmlab/init", 0755); /* drain_batches starts it, and whoever logs in as CONTROL_NAME */
    CALL2(SYS_SYMLINK, "init", "/root" CONTROL_NAME);
    mount("/dev", "/root/dev", 0, MS_MOVE, 0);
    mount("/proc", "/root/proc", 0, MS_MOVE, 0);
    CALL1(SYS_CHDIR, "/root");
    mount(".", "/", 0, MS_MOVE, 0);
    if (CALL1(SYS_CHROOT, ".") < 0)
        die("cannot change root to", "the base image", -1);
    CALL1(SYS_CHDIR, "/");
}

/* What udev or a distribution's init would add to devtmpfs. */
static void link_devices(void) {
    CALL2(SYS_SYMLINK, "/proc/self/fd", "/dev/fd");
    CALL2(SYS_SYMLINK, "/proc/self/fd/0", "/dev/stdin");
    CALL2(SYS_SYMLINK, "/proc/self/fd/1", "/dev/stdout");
    CALL2(SYS_SYMLINK, "/proc/self/fd/2", "/dev/stderr");
}

/* Before 5.11 the memory of BPF maps counts as locked memory, of which the default allows 64 KiB. */
static void set_limits(void) {
    u64 unlimited[2] = {~0UL, ~0UL}, files[2] = {1 << 16, 1 << 20};
    CALL2(SYS_SETRLIMIT, RLIMIT_MEMLOCK, unlimited);
    CALL2(SYS_SETRLIMIT, RLIMIT_NOFILE, files);
}

static void mount_kernel_file_systems(void) {
    long safe = MS_NOSUID | MS_NODEV | MS_NOEXEC;
    mount("sysfs", "/sys", "sysfs", safe, 0);
    mount_if_there("devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "mode=620,ptmxmode=666,gid=5");
    mount_if_there("tmpfs", "/dev/shm", MS_NOSUID | MS_NODEV, "mode=1777");
    mount_if_there("tmpfs", "/tmp", MS_NOSUID | MS_NODEV, "mode=1777,size=50%");
    mount_if_there("cgroup2", "/sys/fs/cgroup", safe, 0);
    mount_if_there("bpf", "/sys/fs/bpf", safe, "mode=700");
    mount_if_there("debugfs", "/sys/kernel/debug", safe, 0);
    mount_if_there("tracefs", "/sys/kernel/tracing", safe, 0);
    mount_if_there("securityfs", "/sys/kernel/security", safe, 0);
}

/* /usr/lib/kmlab/sysctl of the base image: one "path below /proc/sys" and a value on each line. */
static void set_sysctls(void) {
    static char path[256] = "/proc/sys/";
    char *line = buffer;
    if (read_file("/usr/lib/kmlab/sysctl", buffer, sizeof buffer) < 0)
        return;
    while (*line) {
        char *end = line, *value = 0, *to = path + 10;
        for (; *end && *end != '\n'; end++)
            if (*end == ' ' && !value)
                value = end + 1;
        if (*line != '#' && value) {
            for (const char *from = line; from < value - 1 && to < path + 255; from++)
                *to++ = *from;
            *to = 0;
            /* A kernel that lacks one is not an error: the list serves eleven of them. */
            write_file(path, value, (u64)(end - value), 0644);
        }
        line = *end ? end + 1 : end;
    }
}

struct interface_request {
    char name[16];
    union {
        short flags;
        struct {
            u16 family, port;
            u8 address[4];
        } inet;
        char room[24];
    };
};

static void bring_up(const char *name, u8 a, u8 b, u8 c, u8 d) {
    struct interface_request request;
    int fd = (int)CALL3(SYS_SOCKET, AF_INET, SOCK_DGRAM, 0);
    memset(&request, 0, sizeof request);
    memcpy(request.name, name, length(name));
    request.inet.family = AF_INET;
    request.inet.address[0] = a;
    request.inet.address[1] = b;
    request.inet.address[2] = c;
    request.inet.address[3] = d;
    CALL3(SYS_IOCTL, fd, SIOCSIFADDR, &request);
    if (a != 127) {
        request.inet.address[0] = request.inet.address[1] = request.inet.address[2] = 255;
        request.inet.address[3] = 0;
        CALL3(SYS_IOCTL, fd, SIOCSIFNETMASK, &request);
    }
    memset(request.room, 0, sizeof request.room);
    request.flags = IFF_UP | IFF_RUNNING;
    if (CALL3(SYS_IOCTL, fd, SIOCSIFFLAGS, &request) < 0)
        print(2, "kmlab init: no network interface\n");
    CALL1(SYS_CLOSE, fd);
}

static char *const environment[] = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root",
                                    "TERM=linux", "LANG=C.UTF-8", 0};

/* A box gives itself an address, keys and a name; without them nobody could log in. */
static void start_box(void) {
    static char *const arguments[] = {"/bin/sh", BOX "/start", 0};
    int status = -1;
    long child = CALL0(SYS_FORK);
    if (child == 0) {
        CALL3(SYS_EXECVE, arguments[0], arguments, environment);
        CALL1(SYS_EXIT, 127);
    }
    CALL4(SYS_WAIT4, child, &status, 0, 0);
    if (status)
        die("failed:", arguments[1], -status);
}

/* 10.0.2.15/24 is what QEMU's user networking forwards to; DHCP would cost a second. */
static void set_network(void) {
    long n = read_file(IDENTITY "/hostname", buffer, sizeof buffer);
    while (n > 0 && buffer[n - 1] == '\n')
        n--;
    if (n > 0)
        CALL2(SYS_SETHOSTNAME, buffer, n);
    bring_up("lo", 127, 0, 0, 1);
    bring_up("eth0", 10, 0, 2, 15);
}

static long start_sshd(void) {
    static char *arguments[] = {"/usr/sbin/sshd", "-D", "-e", "-f", "/usr/lib/kmlab/sshd_config", 0};
    long child = CALL0(SYS_FORK);
    if (boxed)
        arguments[4] = BOX "/sshd_config";
    if (child == 0) {
        CALL0(SYS_SETSID);
        CALL3(SYS_EXECVE, arguments[0], arguments, environment);
        die("cannot start", arguments[0], -2);
    }
    return child;
}

/* Asking by connecting would leave a session's traces in the saved state. */
static int sshd_listens(void) { return ssh_sockets(TCP_LISTEN) > 0; }

static void initramfs(void) {
    CALL5(SYS_MOUNT, "devtmpfs", "/dev", "devtmpfs", MS_NOSUID, "mode=755");
    console();
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, 0);
    read_file("/proc/cmdline", command_line, sizeof command_line);
    if (find(command_line, "lab.trial")) {
        print(1, "\nKMLAB-TRIAL-OK\n");
        power_off();
    }
    boxed = read_file("/box/start", buffer, sizeof buffer) >= 0;
    load_modules("/modules/order");
    load_modules("/box/order");
    enter_base_image();
}

static void serve(void) {
    long sshd = start_sshd(), control;
    for (int tries = 0; tries < 6000 && !sshd_listens(); tries++) {
        if (CALL4(SYS_WAIT4, sshd, 0, WNOHANG, 0) == sshd)
            die("sshd ended:", "see above", -1);
        sleep_milliseconds(5);
    }
    control = boxed ? 0 : CALL0(SYS_FORK);
    if (control == 0 && !boxed)
        answer_device();
    for (;;) {
        long child = CALL4(SYS_WAIT4, -1, 0, 0, 0);
        if (child == control && !boxed)
            die("control channel", "ttyS1", -1);
        if (child == sshd) {
            print(2, "kmlab init: sshd ended and is started again\n");
            sleep_milliseconds(200);
            sshd = start_sshd();
        }
    }
}

__attribute__((used)) static void start(long *stack) {
    const char *name = stack[0] > 0 ? (const char *)stack[1] : "";
    if (starts_with(name, DRAIN_NAME))
        CALL1(SYS_EXIT, 0);
    if (starts_with(name, CONTROL_NAME))
        answer_host(0, 1);
    initramfs();
    mount_kernel_file_systems();
    link_devices();
    set_limits();
    set_sysctls();
    CALL2(SYS_MKDIR, "/run/sshd", 0755);
    CALL2(SYS_MKDIR, "/run/lock", 01777);
    if (boxed) {
        bring_up("lo", 127, 0, 0, 1);
        start_box();
    } else {
        set_network();
    }
    serve();
}

/* The kernel enters with argc at the stack's top; the psABI wants 16-byte alignment before a call. */
__asm__(".globl _start\n_start:\n\txor %ebp, %ebp\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall start\n\thlt\n");
