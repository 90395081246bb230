"""A machine of Vagrant's as this host sees it, without asking Vagrant, which takes one or two seconds per question.

Vagrant keeps the UUID of a machine's libvirt domain in its data folder and goes by it; so does all that is here. A
domain's name can be changed (``virsh domrename``), its UUID cannot. libvirt starts QEMU with ``-uuid``, and everybody
may read a process's command line, so that neither root nor a file of libvirt's is needed.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from vm.errors import UsageError
from vm.machine import Accelerator
from vm.model import Kernel
from vm.paths import REPOSITORY
from vm.qemu.process import ProcessId

URI = "qemu:///system"
"""Where vagrant-libvirt has its domains."""

_LINE_OF = re.compile(r"lab-(?P<line>\d+\.\d+)")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Placed(msgspec.Struct, frozen=True, kw_only=True):
    """Where a machine is with Vagrant, as its registration remembers it.

    :param data: Vagrant's data folder. :param machine: what the Vagrantfile calls it.
    :param prefix: of the domain's name; empty: the Vagrantfile's own.
    :param uuid: of the domain; empty until there is one.
    :param snapshot: name of the one that a reset goes back to; empty: there is none.
    :param host: where its sshd is. :param user: and ``private_key``: to log in with.
    :param adopted: it was there before: ``vagrant up`` had made it.
    """

    data: str
    machine: str
    prefix: str = ""
    uuid: str = ""
    snapshot: str = ""
    host: str = ""
    user: str = "root"
    private_key: str = ""
    adopted: bool = False


@dataclass(frozen=True, slots=True)
class Domain:
    """The QEMU of a domain.

    :param words: its command line.
    """

    process: ProcessId
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """What the command line of a domain's QEMU says of the machine.

    :param program: path of QEMU.
    """

    program: Path
    accelerator: Accelerator
    cpu_model: str
    machine_type: str
    cpus: int
    memory_mib: int


def person_data() -> Path:
    """Return the data folder of a person's own machines: the one that ``vagrant`` uses in this checkout."""
    return REPOSITORY / (os.environ.get("VAGRANT_DOTFILE_PATH") or ".vagrant")


def machine_name(kernel: Kernel) -> str:
    """Return what the Vagrantfile calls the machine of a locked kernel.

    :raises UsageError: the kernel is one's own, of which there is no box.
    """
    if kernel.support == "own":
        raise UsageError(
            f"there is no box of {kernel.release}: it is a kernel of one's own",
            "boxes are made of locked kernels (invoke kernels); without --provider it runs as it is",
        )
    return f"lab-{kernel.line}"


def kernel_line(machine: str) -> str:
    """Return the line of the kernel that the Vagrantfile's ``machine`` runs; empty where it is none of its names."""
    found = _LINE_OF.fullmatch(machine)
    return found["line"] if found else ""


def machine_id(data: Path, machine: str) -> str:
    """Return the UUID of the domain that Vagrant has for ``machine``; empty where it has none."""
    try:
        text = (data / "machines" / machine / "libvirt" / "id").read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""
    return text if _UUID.fullmatch(text) else ""


def box_version(data: Path, machine: str) -> str:
    """Return the version of the box that Vagrant made ``machine`` of; empty where it does not say."""
    try:
        said = msgspec.json.decode((data / "machines" / machine / "libvirt" / "box_meta").read_bytes(), type=_BoxMeta)
    except (OSError, msgspec.MsgspecError):
        return ""
    return said.version


class _BoxMeta(msgspec.Struct):
    """What Vagrant writes down of a machine's box."""

    version: str


def created(data: Path) -> list[str]:
    """Return the machines of the Vagrantfile that Vagrant has made with libvirt in ``data``, running or not."""
    names = (path.name for path in data.glob("machines/lab-*"))
    return sorted(name for name in names if kernel_line(name) and machine_id(data, name))


def find(uuid: str, proc: Path = Path("/proc")) -> Domain | None:
    """Return the QEMU of the domain, or None where none runs or none can be seen."""
    if not uuid:
        return None
    for entry, words in _command_lines(proc):
        if _value(words, "-uuid") == uuid:
            process = ProcessId.of(int(entry.name))
            if process is not None:
                return Domain(process, words)
    return None


def cpu_threads(pid: int, proc: Path = Path("/proc")) -> tuple[int, ...]:
    """Return the threads of QEMU that run its CPUs: libvirt lets QEMU name them ``CPU 0/TCG`` or ``CPU 0/KVM``."""
    found = []
    try:
        for task in (proc / str(pid) / "task").iterdir():
            name = re.match(r"CPU (\d+)/", (task / "comm").read_text())
            if name:
                found.append((int(name[1]), int(task.name)))
    except OSError:
        return ()
    return tuple(thread for _, thread in sorted(found))


def seen(words: Sequence[str]) -> Seen | None:
    """Return what a command line that libvirt made says of the machine; None where it does not say all of it."""
    machine, memory, cpus = _value(words, "-machine"), _value(words, "-m"), _value(words, "-smp")
    accelerator = _value(words, "-accel") or _option(machine, "accel")
    mib = _mebibytes(memory.partition(",")[0])
    count = cpus.partition(",")[0].removeprefix("cpus=")
    kind = accelerator.partition(",")[0]
    if not machine or not mib or not count.isdigit() or kind not in ("kvm", "tcg"):
        return None
    return Seen(
        program=Path(words[0]),
        accelerator="kvm" if kind == "kvm" else "tcg",
        cpu_model=_value(words, "-cpu") or "default",
        machine_type=machine.partition(",")[0],
        cpus=int(count),
        memory_mib=mib,
    )


def _command_lines(proc: Path) -> Iterator[tuple[Path, tuple[str, ...]]]:
    for entry in proc.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            data = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if b"-uuid\0" in data:
            yield entry, tuple(word.decode("utf-8", "replace") for word in data.rstrip(b"\0").split(b"\0"))


def _value(words: Sequence[str], option: str) -> str:
    """Return the word after ``option``."""
    for word, value in itertools.pairwise(words):
        if word == option:
            return value
    return ""


def _option(text: str, name: str) -> str:
    """Return the value of ``name`` in ``a,name=value,…``."""
    found = re.search(rf"(?:^|,){name}=([^,]*)", text)
    return found[1] if found else ""


def _mebibytes(text: str) -> int:
    """Return what ``-m`` says: MiB, or with the unit that newer versions of libvirt add (``size=1048576k``)."""
    found = re.fullmatch(r"(?:size=)?(\d+)([kMG]?)", text)
    if not found:
        return 0
    number = int(found[1])
    return {"k": number // 1024, "M": number, "G": number * 1024, "": number}[found[2]]
