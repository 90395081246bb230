"""libvirt's daemons and its default network for tests that need them, started and taken down again without a trace.

Where a libvirtd answers already it is used, and only what the tests made is removed from it. Where none does, one is
started (as root, or through sudo) in a mount name space of its own, in which ``/etc/libvirt`` and libvirt's folders
below ``/var`` are private ones: nothing that it writes is left when it ends. There ``/dev/kvm`` is hidden where KVM
does not work, because libvirtd would otherwise examine QEMU anew at each call, for minutes.

By hand, for as long as one likes: ``python -m tests.vagrant_host up`` and ``… down``.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from provision import doctor
from provision.checks.host import SYSTEM_PATH
from provision.checks.vagrant import HIDE_KVM
from vm import lock as locks
from vm.deadline import Deadline
from vm.errors import LabError, SetupError
from vm.paths import REPOSITORY, Layout
from vm.qemu import accel
from vm.registry import Process
from vm.vagrant.domain import URI
from vm.vagrant.trouble import JOIN_GROUP, OTHER_ADDRESSES, START_NETWORK

STATE = Path("/var/lib/kmlab-vagrant-host")
"""All that a libvirtd of ours writes, and ``host.json``, which says what runs and whose it is."""

NETWORK = "default"
START_SECONDS = 120.0
"""It examines QEMU first: 2 s of CPU time, of which a busy host has little to give."""

# $1: STATE; $2: whether /dev/kvm is to be hidden. It must not be writable, or libvirtd takes it for KVM; root may write
# to everything but to what is mounted read-only, and device nodes may be written to even there: so a plain file.
START = """set -e
mount --make-rprivate /
mkdir -p /etc/libvirt /var/lib/libvirt /var/log/libvirt /var/cache/libvirt
mount --bind "$1/etc" /etc/libvirt
for part in lib log cache; do mount --bind "$1/$part" "/var/$part/libvirt"; done
if [ "$2" = yes ]; then
  mount --bind "$1/no-kvm" /dev/kvm
  mount -o remount,bind,ro /dev/kvm
fi
virtlogd -d -p "$1/virtlogd.pid"
libvirtd -d -p "$1/libvirtd.pid"
"""

QEMU_SETTINGS = "\nnamespaces = []\n"
"""With name spaces libvirtd makes each QEMU a /dev of its own, and a /dev/kvm in it that was hidden from itself."""

LIBVIRTD_SETTINGS = (
    '\nauth_unix_rw = "none"\nauth_unix_ro = "none"\nunix_sock_group = "libvirt"\nunix_sock_rw_perms = "0770"\n'
)
"""Who is in the group may use it. Debian asks polkit, which does not run where systemd does not."""


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """What ``host.json`` holds: the daemons, and the process that they are to end with (None: started by hand)."""

    daemons: list[Process]
    owner: Process | None

    @property
    def abandoned(self) -> bool:
        """Whether the process that they are to end with is no more."""
        return self.owner is not None and not self.owner.identity.alive


@dataclass(frozen=True, slots=True)
class Inventory:
    """What libvirtd knows, and what it put on the host. Volumes are named with their pools.

    :param active: networks that run.
    :param processes: command lines of daemons, machines and DHCP servers, by process number.
    """

    domains: frozenset[str]
    volumes: frozenset[tuple[str, str]]
    networks: frozenset[str]
    active: frozenset[str]
    pools: frozenset[str]
    processes: frozenset[tuple[int, str]]
    bridges: frozenset[str]


@dataclass(frozen=True, slots=True)
class VagrantHost:
    """A host on which Vagrant can start machines.

    :param home: VAGRANT_HOME, a folder of the tests' own: no box of the person's is touched.
    :param started: whether the daemons run for the tests only.
    """

    home: Path
    started: bool


def virsh(*words: str, seconds: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Run virsh in C's locale; whether it went well is for the caller to judge.

    :raises SetupError: it was not over within ``seconds``: a libvirtd is there, and says nothing.
    """
    try:
        return subprocess.run(
            ["virsh", "-q", "-c", URI, *words], capture_output=True, text=True, check=False,
            env={**os.environ, "LC_ALL": "C"}, timeout=seconds, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        message = f"libvirtd has said nothing for {seconds:.0f} s (virsh {' '.join(words)})"
        raise SetupError(message, f"where /dev/kvm is useless: {HIDE_KVM}") from None


def names(*words: str) -> frozenset[str]:
    """Return the names that a listing of virsh gives; none where no libvirtd answers."""
    said = virsh(*words)
    return frozenset(said.stdout.split()) if said.returncode == 0 else frozenset()


def answers(seconds: float = 60.0) -> bool:
    """Whether a libvirtd answers this user. Asked by itself, virsh would start one for this user only.

    :raises SetupError: one is there, and has said nothing for ``seconds``.
    """
    return shutil.which("virsh") is not None and virsh("version", seconds=seconds).returncode == 0


def inventory() -> Inventory:
    """Look at all that a test may leave behind."""
    pools = names("pool-list", "--all", "--name")
    return Inventory(
        domains=names("list", "--all", "--name"),
        volumes=frozenset((pool, name) for pool in names("pool-list", "--name") for name in _volumes(pool)),
        networks=names("net-list", "--all", "--name"),
        active=names("net-list", "--name"),
        pools=pools,
        processes=frozenset(_processes()),
        bridges=frozenset(name for _, name in socket.if_nameindex() if name.startswith(("virbr", "vnet"))),
    )


def network_addresses() -> str:
    """Return the addresses of the default network, as vagrant-libvirt has to be told: address and mask."""
    said = virsh("net-dumpxml", NETWORK).stdout
    found = re.search(r"<ip address='([\d.]+)' netmask='([\d.]+)'", said)
    if found is None:
        raise SetupError(f"the network {NETWORK} has no addresses", OTHER_ADDRESSES)
    return f"{found[1]}/{found[2]}"


def up(owner: Process | None) -> bool:
    """Start what does not run; return whether daemons were started that ``owner`` has to take down.

    Daemons that a process which is no more had started are taken over.

    :raises SetupError: they cannot be started, or not be used by this user.
    """
    running = _read()
    answered = answers()
    if answered and (running is None or not running.abandoned):
        _start_network()
        return False
    if os.geteuid() != 0:
        return _up_as_root(owner)
    if answered and running is not None:
        _write(Running(daemons=running.daemons, owner=owner))
        _start_network()
        return True
    down()
    _make_folders()
    hidden = "no" if not accel.DEVICE.exists() or kvm_works() else "yes"
    began = subprocess.run(
        ["unshare", "-m", "sh", "-c", START, "sh", STATE, hidden],
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, cwd="/",
        env={**os.environ, "PATH": f"{os.environ['PATH']}:{SYSTEM_PATH}"},
    )  # fmt: skip
    daemons = [_daemon(STATE / f"{name}.pid") for name in ("virtlogd", "libvirtd")]
    _write(Running(daemons=[daemon for daemon in daemons if daemon is not None], owner=owner))
    if began.returncode != 0:
        down()
        raise SetupError(f"libvirtd does not start: {began.stderr.strip()}", "./setup.sh --with-vagrant")
    try:
        _wait_for_answer()
        _start_network()
    except SetupError:
        down()
        raise
    return True


def down() -> None:
    """End the daemons that :func:`up` started, with every machine and network on them, and remove what they wrote."""
    running = _read()
    if os.geteuid() != 0 and (running is not None or STATE.exists()):
        _as_root("down", None)
        return
    if running is not None and any(daemon.identity.alive for daemon in running.daemons):
        with contextlib.suppress(SetupError):  # one that says nothing is ended all the same
            for domain in names("list", "--name"):
                virsh("destroy", domain)
            for network in names("net-list", "--name"):
                virsh("net-destroy", network)
        for daemon in reversed(running.daemons):
            _end(daemon)
    shutil.rmtree(STATE, ignore_errors=True)


def remove_new(before: Inventory, folder: Path) -> None:
    """Remove from a libvirtd that is not ours what the tests made there since ``before``.

    :param folder: the tests' temporary folder: a domain is theirs if Vagrant's data in it names the domain, or the
        domain names the folder; others may use the same libvirtd meanwhile.
    """
    ids = {path.read_text().strip() for path in folder.rglob("machines/*/libvirt/id")}
    for domain in names("list", "--all", "--name") - before.domains:
        if domain.startswith("kmlab-") and _is_theirs(domain, ids, folder):
            virsh("destroy", domain)
            virsh("undefine", domain, "--nvram", "--managed-save", "--snapshots-metadata")
            for pool, volume in inventory().volumes - before.volumes:
                if volume.startswith(f"{domain}.") or volume.startswith(f"{domain}-vd"):
                    virsh("vol-delete", volume, "--pool", pool)
    volumes = inventory().volumes
    used = "\n".join(virsh("vol-dumpxml", name, "--pool", pool).stdout for pool, name in volumes)
    backing = re.findall(r"<backingStore>\s*<path>([^<]*)</path>", used)
    for pool, volume in volumes - before.volumes:
        is_box = volume.startswith("kmlab-VAGRANTSLASH-") and "_vagrant_box_image_" in volume
        if is_box and not any(path.endswith(f"/{volume}") for path in backing):
            virsh("vol-delete", volume, "--pool", pool)
    for pool in names("pool-list", "--all", "--name") - before.pools:
        if not _volumes(pool):
            virsh("pool-destroy", pool)
            virsh("pool-undefine", pool)
    # All machines of the lab are on this one network (Vagrantfile); other networks are somebody else's.
    if NETWORK not in before.active and " connections=" not in virsh("net-dumpxml", NETWORK).stdout:
        virsh("net-destroy", NETWORK)
        if NETWORK not in before.networks:
            virsh("net-undefine", NETWORK)


@contextlib.contextmanager
def hosting(folder: Path) -> Iterator[VagrantHost]:
    """Start what Vagrant needs, give it, and take it down.

    :param folder: for VAGRANT_HOME, and where tests keep Vagrant's data, somewhere below it.
    """
    before = inventory()
    started = up(Process.of(os.getpid()))
    home = folder / "vagrant-home"
    try:
        yield VagrantHost(home, started)
    finally:
        shutil.rmtree(home, ignore_errors=True)  # its boxes; pytest keeps its folders of the last three sessions
        if started:
            down()
        else:
            remove_new(before, folder)


def kvm_works() -> bool:
    """Whether KVM is of use: by what the lab remembers of a trial, else whether this host is no machine itself."""
    try:
        report = doctor.known_kvm(locks.read(), Layout.from_environment())
    except LabError:
        report = accel.glance()
    if report.state is not accel.Kvm.UNTRIED:
        return report.state is accel.Kvm.WORKS
    return " hypervisor " not in Path("/proc/cpuinfo").read_text().partition("\n\n")[0].replace("\n", " ")


def _volumes(pool: str) -> list[str]:
    said = virsh("vol-list", "--pool", pool)
    return [line.split()[0] for line in said.stdout.splitlines() if line.strip()]


def _processes() -> Iterator[tuple[int, str]]:
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or Process.of(int(entry.name)) is None:
            continue
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
            program = Path(words[0]).name
            theirs = any("libvirt" in word for word in words[1:])
            if program in ("libvirtd", "virtlogd") or (program in ("dnsmasq", "qemu-system-x86_64") and theirs):
                yield int(entry.name), " ".join(words).strip()


def _make_folders() -> None:
    # As libvirt's own folders are: others see who owns the daemons (host.json), and QEMU runs as another user.
    for folder, mode in ((".", 0o711), ("lib", 0o755), ("log", 0o755), ("cache", 0o755), ("lib/images", 0o711)):
        (STATE / folder).mkdir()
        (STATE / folder).chmod(mode)  # whatever the umask is
    (STATE / "no-kvm").touch()
    networks = STATE / "etc" / "qemu" / "networks"
    networks.mkdir(parents=True)
    host = Path("/etc/libvirt")
    for path in (*host.glob("*.conf"), *host.glob("nwfilter/*.xml")):
        target = STATE / "etc" / path.relative_to(host)
        target.parent.mkdir(exist_ok=True)
        shutil.copy2(path, target)
    for name, words in (("qemu.conf", QEMU_SETTINGS), ("libvirtd.conf", LIBVIRTD_SETTINGS)):
        with (STATE / "etc" / name).open("a") as file:
            file.write(words)


def _start_network() -> None:
    """Let the default network run: no test can do without."""
    if NETWORK in names("net-list", "--name"):
        return
    if NETWORK not in names("net-list", "--all", "--name"):
        virsh("net-define", "/usr/share/libvirt/networks/default.xml")
    said = virsh("net-start", NETWORK)
    if said.returncode != 0 and NETWORK not in names("net-list", "--name"):
        words = " ".join(said.stderr.split())
        raise SetupError(f"the network {NETWORK} does not start: {words}", f"{START_NETWORK}; {OTHER_ADDRESSES}")


def _wait_for_answer() -> None:
    deadline = Deadline.after(START_SECONDS)
    while not answers(START_SECONDS):
        if deadline.expired:
            raise SetupError(f"libvirtd does not answer within {START_SECONDS:.0f} s", _last_words())
        time.sleep(0.05)


def _up_as_root(owner: Process | None) -> bool:
    """Let root do :func:`up`, and see that what runs then may be used by this user."""
    before = _read()
    _as_root("up", owner)
    started = _read() != before
    if not answers():
        if started:
            down()
        raise SetupError("libvirtd may not be used by you", JOIN_GROUP)
    return started


def _as_root(command: str, owner: Process | None) -> None:
    """Do the same through sudo, which must not ask for a password: nobody is there to give it."""
    words = [
        "sudo",
        "-n",
        sys.executable,
        "-B",
        "-m",
        "tests.vagrant_host",
        command,
        *([str(owner.pid)] if owner else []),
    ]
    hint = f"as root, once: {sys.executable} -m tests.vagrant_host {command}"
    if shutil.which("sudo") is None:
        raise SetupError("libvirtd does not run, and only root can start it", hint)
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise SetupError(f"libvirtd cannot be started or ended through sudo: {done.stderr.strip()}", hint)


def _daemon(file: Path) -> Process | None:
    try:
        return Process.of(int(file.read_text()))
    except (OSError, ValueError):
        return None


def _end(daemon: Process) -> None:
    for number, patience in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0)):
        if daemon.identity.alive:
            os.kill(daemon.pid, number)
        deadline = Deadline.after(patience)
        while daemon.identity.alive and not deadline.expired:
            time.sleep(0.02)


def _is_theirs(domain: str, ids: set[str], folder: Path) -> bool:
    return virsh("domuuid", domain).stdout.strip() in ids or str(folder) in virsh("dumpxml", domain).stdout


def _last_words() -> str:
    logs = sorted((STATE / "log").glob("*.log"))
    return "\n".join(line for log in logs for line in log.read_text("utf-8", "replace").splitlines()[-5:])


def _read() -> Running | None:
    try:
        return msgspec.json.decode((STATE / "host.json").read_bytes(), type=Running)
    except (OSError, msgspec.MsgspecError):
        return None


def _write(running: Running) -> None:
    file = STATE / "host.json"
    file.write_bytes(msgspec.json.encode(running))
    file.chmod(0o644)


def main(words: Sequence[str]) -> int:
    """Start or end the daemons by hand; a process number after ``up`` names whom they end with."""
    match list(words):
        case ["up"]:
            print("started" if up(None) else "runs already")
        case ["up", pid] if pid.isdecimal():
            up(Process.of(int(pid)))
        case ["down"]:
            down()
        case _:
            print("usage: python -m tests.vagrant_host up|down", file=sys.stderr)
            return 10
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except LabError as error:
        sys.exit(f"error: {error.message}\nhint: {error.hint}")
