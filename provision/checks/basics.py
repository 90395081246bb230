"""Checks of what the host brings: system, Python, packages, ids, name spaces, CPUs, memory, disk, folders, clock."""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path

from provision.checks.host import Finding, Host
from vm.paths import Layout

SETUP = "./setup.sh"

SUPPORTED = {("debian", "12"), ("debian", "13"), ("ubuntu", "24.04")}
"""Distributions that setup.sh is made for; on others the lab may well work."""

PROGRAMS = {"mmdebstrap": "mmdebstrap", "newuidmap": "uidmap", "newgidmap": "uidmap", "gpgv": "gpgv"}
"""Program → package of Debian that brings it."""

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

SUBID_COUNT = 65536
"""Subordinate ids that mmdebstrap needs to map every id of an image."""

GIB = 1 << 30
DISK_EMPTY = 10 * GIB
"""Disk that downloads, artefacts and saved states of the default kernels take from an empty cache."""

DISK_LEAST = 1 * GIB
"""Below this not even a run with everything built is sure to end."""

MEMORY_WANTED = 1536
"""MiB: a machine has 1024, QEMU's own translation cache and tables and the lab take the rest."""

MEMORY_LEAST = 1152


def system(host: Host) -> Finding:
    """Linux on x86-64, and which distribution."""
    answer = host.run(["uname", "-sm"])
    if answer.text != "Linux x86_64":
        fix = "use a Linux virtual machine on an x86-64 host (README.md, What you need)"
        return Finding(check="system", result="fail", detail=f"this is {answer.text}", fix=fix)
    values = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', host.read("/etc/os-release") or "", re.MULTILINE))
    name = values.get("PRETTY_NAME", "an unknown distribution")
    if (values.get("ID", ""), values.get("VERSION_ID", "")) not in SUPPORTED:
        detail = f"{name} on x86-64; tried are Debian 12, Debian 13 and Ubuntu 24.04"
        return Finding(check="system", result="warn", detail=detail, fix="install mmdebstrap, uidmap and gpgv yourself")
    return Finding(check="system", result="ok", detail=f"{name} on x86-64")


def python(host: Host, root: Path) -> Finding:
    """Python's version, and that .venv was made of today's requirements.txt.

    :param root: of the checkout.
    """
    version = ".".join(str(part) for part in sys.version_info[:3])
    stamp = host.read(str(root / ".venv" / ".kmlab-stamp"))
    if stamp is None:
        detail = f"{version}; .venv was not made, or not finished, by setup.sh"
        return Finding(check="Python", result="warn", detail=detail, fix=SETUP)
    # setup.sh, wanted_stamp: requirements, interpreter, place.
    wanted = f"{host.read(str(root / 'requirements.txt')) or ''}{sys.version}\n{root / '.venv'}\n"
    if stamp.strip() != hashlib.sha256(wanted.encode()).hexdigest():
        detail = f"{version}; requirements.txt, the interpreter or the folder changed since setup.sh ran"
        return Finding(check="Python", result="warn", detail=detail, fix=SETUP)
    return Finding(check="Python", result="ok", detail=f"{version} in .venv, packages as pinned")


def packages(host: Host) -> Finding:
    """The host's programs."""
    missing = sorted({package for program, package in PROGRAMS.items() if host.which(program) is None})
    if missing:
        return Finding(check="host packages", result="fail", detail=f"missing: {', '.join(missing)}", fix=SETUP)
    version = host.run(["mmdebstrap", "--version"]).text
    return Finding(check="host packages", result="ok", detail=f"{version}, uidmap, gpgv")


def keyring(host: Host) -> Finding:
    """Debian's archive keys, needed when the lock is made, not when it is built."""
    if host.exists(KEYRING):
        return Finding(check="archive keyring", result="ok", detail=KEYRING)
    detail = f"{KEYRING} is missing: kernels.lock cannot check signatures"
    return Finding(check="archive keyring", result="warn", detail=detail, fix=SETUP)


def subordinate_ids(host: Host) -> Finding:
    """Ranges in /etc/subuid and /etc/subgid for this user."""
    lacking = [file for file in ("/etc/subuid", "/etc/subgid") if not _has_range(host, file)]
    if lacking:
        detail = f"{host.user} has no {SUBID_COUNT} ids in {' and '.join(lacking)}"
        return Finding(check="subordinate ids", result="fail", detail=detail, fix=SETUP)
    return Finding(check="subordinate ids", result="ok", detail=f"{SUBID_COUNT} user and group ids for {host.user}")


def _has_range(host: Host, file: str) -> bool:
    for line in (host.read(file) or "").splitlines():
        match line.split(":"):
            case [name, first, count] if first.isdecimal() and count.isdecimal():
                if name in (host.user, str(host.uid)) and int(count) >= SUBID_COUNT:
                    return True
    return False


def name_spaces(host: Host) -> Finding:
    """Whether a user name space with mapped ids can really be made: mmdebstrap's own helper tries it."""
    if host.which("mmdebstrap") is None:
        return Finding(check="user name spaces", result="fail", detail="not tried without mmdebstrap", fix=SETUP)
    answer = host.run(["mmdebstrap", "--unshare-helper", "/bin/true"])
    if answer.status == 0:
        return Finding(check="user name spaces", result="ok", detail="a name space with mapped ids was made")
    if host.uid == 0:
        # mmdebstrap then works in its root mode (chroot), which needs no name space.
        detail = "none can be made (a container, perhaps); as root the lab works without"
        return Finding(check="user name spaces", result="warn", detail=detail)
    detail, fix = _name_space_cause(host)
    return Finding(check="user name spaces", result="fail", detail=detail or _last_line(answer.text), fix=fix)


def _name_space_cause(host: Host) -> tuple[str, str]:
    """Return why name spaces are refused, and the way out; ("", …) where it is not known."""
    if (host.read("/proc/sys/user/max_user_namespaces") or "").strip() == "0":
        return "user.max_user_namespaces is 0", "sudo sysctl user.max_user_namespaces=15000"
    if (host.read("/proc/sys/kernel/unprivileged_userns_clone") or "").strip() == "0":
        return "kernel.unprivileged_userns_clone is 0", "sudo sysctl kernel.unprivileged_userns_clone=1"
    # Ubuntu from 23.10 on allows them only to programs with an AppArmor profile that says so; its apparmor package
    # brings one for mmdebstrap.
    if (host.read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") or "").strip() == "1":
        detail = "AppArmor restricts them (kernel.apparmor_restrict_unprivileged_userns is 1)"
        if host.exists("/etc/apparmor.d/mmdebstrap"):
            return detail, "sudo apparmor_parser --replace /etc/apparmor.d/mmdebstrap"
        return detail, "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0"
    return "", "run the lab as root, or ask who runs this host to allow user name spaces"


def processors(host: Host) -> Finding:
    """CPUs: a machine has two."""
    count = host.cpus()
    if count < 2:
        detail = "1 CPU for a machine of two: contention will look different, and everything takes twice as long"
        return Finding(check="CPUs", result="warn", detail=detail)
    return Finding(check="CPUs", result="ok", detail=f"{count}")


def memory(host: Host) -> Finding:
    """Memory that is free for one machine."""
    match = re.search(r"^MemAvailable:\s+(\d+) kB$", host.read("/proc/meminfo") or "", re.MULTILINE)
    if match is None:
        return Finding(check="memory", result="warn", detail="/proc/meminfo does not tell what is available")
    available = int(match[1]) >> 10
    detail = f"{available} MiB available, a machine takes about {MEMORY_WANTED}"
    if available < MEMORY_LEAST:
        return Finding(check="memory", result="fail", detail=detail, fix="end other programs, or add memory or swap")
    return Finding(check="memory", result="ok" if available >= MEMORY_WANTED else "warn", detail=detail)


def disk(host: Host, layout: Layout, *, built: bool) -> list[Finding]:
    """Free space where the cache and the records lie.

    :param built: whether tools root and base image are in the cache, so that little more is needed.
    """
    findings = []
    for name, path in (("cache", layout.cache), ("records", layout.runs)):
        free = host.free_bytes(path)
        wanted = DISK_EMPTY if name == "cache" and not built else 2 * DISK_LEAST
        detail = f"{free / GIB:.1f} GiB free at {path}"
        if free < DISK_LEAST:
            findings.append(
                Finding(check=f"disk ({name})", result="fail", detail=detail, fix=".venv/bin/invoke images.clean")
            )
        elif free < wanted:
            detail += f", {wanted / GIB:.0f} GiB is comfortable"
            findings.append(
                Finding(check=f"disk ({name})", result="warn", detail=detail, fix=".venv/bin/invoke images.clean")
            )
        else:
            findings.append(Finding(check=f"disk ({name})", result="ok", detail=detail))
    return findings


def folders(host: Host, layout: Layout) -> Finding:
    """Whether the lab's folders can be written to: a run as root may have left some behind."""
    locked = [str(path) for path in (layout.cache, layout.state, layout.runs) if not host.writable(path)]
    if locked:
        fix = f"sudo chown -R {host.user} {' '.join(locked)}"
        return Finding(check="folders", result="fail", detail=f"not writable: {', '.join(locked)}", fix=fix)
    return Finding(check="folders", result="ok", detail=f"{layout.cache}, {layout.state}, {layout.runs}")


def clock(host: Host, locked_at: int) -> Finding:
    """The host's clock: one that is years behind makes certificates and machines' clocks wrong.

    :param locked_at: seconds since 1970 when the lock was made.
    """
    if host.now() < locked_at:
        days = (locked_at - host.now()) / 86400
        detail = f"it is {days:.0f} days before the lock was made"
        return Finding(check="clock", result="warn", detail=detail, fix="sudo timedatectl set-ntp true")
    return Finding(check="clock", result="ok", detail="after the lock's date")


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1][:200] if lines else "it was refused without a word"
