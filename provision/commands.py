"""How ``tasks.py`` declares a task: its options with their help, in the error frame."""

from __future__ import annotations

from collections.abc import Callable

from invoke.tasks import Task

from provision.frame import StatusOf, framed

KERNEL = "kernel line (6.1), release, or path of your own; `invoke kernels` lists them"
KERNELS = f"{KERNEL}; several with commas"
JSON = "print one JSON document on stdout instead of text"
ACCEL = "auto (a trial decides), kvm, or tcg for emulation"
CLOCK = "host, or virtual: time is a count of instructions, for figures that repeat"
PROVIDER = "qemu (default), or vagrant: a machine that Vagrant makes of the same images"
PROVIDER_OF = "only machines of this one: qemu or vagrant (also those of plain vagrant up)"
NAME = "machine's name, where there are several of one kernel"

RUN = {
    "provider": PROVIDER,
    "accel": ACCEL,
    "clock": CLOCK,
    "cold": "boot instead of restoring a saved state",
    "machine": "run on a machine of yours (`invoke vm.up`) instead of a fresh one",
    "runs": "folder for the record (runs/)",
    "system-qemu": "use the host's QEMU instead of the locked one",
}
"""Options of everything that runs something in a machine and leaves a record."""

UP = {
    "kernel": KERNEL,
    "name": "what to call it (the kernel's line; with Vagrant always lab-LINE)",
    "provider": PROVIDER,
    "accel": ACCEL,
    "clock": CLOCK,
    "cold": "boot, do not restore",
}
"""Options of what starts a machine that stays."""


def command(
    options: dict[str, str],
    *,
    name: str | None = None,
    default: bool = False,
    repeated: tuple[str, ...] = (),
    optional: tuple[str, ...] = (),
    status: StatusOf = lambda code: code,
) -> Callable[[Callable[..., None]], Task[Callable[..., None]]]:
    """Make a task of a function: in the error frame, with the help of each option, without guessed short flags.

    :param repeated: options that may be given several times. :param optional: those whose value may be left away.
    """

    def wrap(function: Callable[..., None]) -> Task[Callable[..., None]]:
        body = framed(function, status=status)
        return Task(
            body,
            name=name,
            help=options,
            default=default,
            iterable=list(repeated),
            optional=list(optional),
            auto_shortflags=False,
        )

    return wrap


def finish(status: int) -> None:
    """End with ``status`` unless it is success."""
    if status:
        raise SystemExit(status)
