"""Programs that are no labs: finding one, and the probe sets that fit it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from bpf.buildinfo import read_build_info
from bpf.elf import Elf
from bpf.plan import make_plan
from bpf.probes import CALIBRATION, SETS
from go_labs.spec import LabFolder, traced_program
from provision import cli
from vm.errors import ProbeError, UsageError


def known_sets() -> list[str]:
    """Return the names of the probe sets that watch a program."""
    return sorted(name for name in SETS if name != CALIBRATION.name)


def chosen(binary: Path, names: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return the probe sets to trace ``binary`` with, and for each that was left out the reason.

    :param names: asked for; empty: every set that fits, at least one.
    :raises UsageError: there is no such set; near names are suggested.
    :raises ProbeError: it is no Go program that can be probed, or a set that was asked for, or every set, does not fit.
    """
    for name in names:
        cli.one_of("--probes", name, known_sets())
    elf = Elf.open(binary)
    read_build_info(elf)
    if names:
        wanted = list(dict.fromkeys(names))
        make_plan(elf, [SETS[name] for name in wanted])
        return wanted, {}
    fitting: list[str] = []
    left_out: dict[str, str] = {}
    failed: ProbeError | None = None
    for name in known_sets():
        try:
            make_plan(elf, [SETS[name]])
        except ProbeError as error:
            failed, left_out[name] = failed or error, error.message
        else:
            fitting.append(name)
    if not fitting and failed is not None:
        raise failed
    return fitting, left_out


def program(text: str, probes: str, timeout: float, say: Callable[[str], None]) -> LabFolder:
    """Return what stands in for a lab where the program ``text`` is traced.

    :param probes: sets, with commas; empty: every one that fits, and ``say`` is told which do not, and why.
    :param timeout: seconds that it gets in each phase.
    :raises UsageError: there is no such file or probe set. :raises ProbeError: see :func:`chosen`.
    """
    path = Path(text).expanduser().absolute()
    if not path.is_file():
        raise UsageError(f"there is no program {text}", "give the path of a Go binary for linux/amd64")
    sets, left_out = chosen(path, cli.words("--probes", probes) if probes else [])
    for name, why in left_out.items():
        say(f"probe set {name} is left out: {why}")
    return traced_program(path, sets, timeout)


def arguments(remainder: str, argv: Sequence[str]) -> tuple[str, ...]:
    """Return the words after ``--``.

    Invoke joins them with spaces, so that a quoted one cannot be told from several; the command line still has them.

    :param remainder: as Invoke gives it. :param argv: of this process.
    :raises UsageError: a word has no closing quotation (where ``argv`` has other words than ``remainder``).
    """
    if "--" in argv:
        words = tuple(argv[list(argv).index("--") + 1 :])
        if " ".join(words) == remainder:
            return words
    try:
        return tuple(shlex.split(remainder))
    except ValueError as error:
        raise UsageError(f"the arguments after -- cannot be read: {error}", "quote them as for a shell") from error
