"""The log of one attempt: what was done when, and the machine's own words where no record can hold them."""

from __future__ import annotations

import contextlib
import time
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from go_labs.matrix import PlannedRun
from provision.house import House
from vm.registry import LOGS as MACHINE_LOGS


class Log:
    """``logs/NUMBER-LAB-KERNEL-BLOCK-ATTEMPT.log``; a context manager, which may still be added to after its end.

    :param folder: of all logs.
    """

    def __init__(self, folder: Path, run: PlannedRun, attempt: int, line: str) -> None:
        folder.mkdir(exist_ok=True)
        plain = "".join(c if c.isascii() and (c.isalnum() or c in "._") else "_" for c in line)
        self.name = f"{run.number:04d}-{run.lab}-{plain}-b{run.block}-{attempt}.log"
        self.path = folder / self.name
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        self.say(f"began at {datetime.now(UTC).isoformat(timespec='seconds')}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.say(f"ended by {type(error).__name__}: {error}")

    def say(self, text: str) -> None:
        """Add a line with the seconds since the beginning."""
        with self.path.open("a", encoding="utf-8", errors="replace") as file:
            file.write(f"{time.monotonic() - self._began:8.2f} s  {text}\n")

    def add(self, title: str, text: str) -> None:
        """Add somebody else's words as they are, below a title."""
        with self.path.open("a", encoding="utf-8", errors="replace") as file:
            file.write(f"\n---- {title} ----\n{text}\n")


def kept_console(house: House, machine: str, log: Log) -> None:
    """Add what a machine that came to nothing left: its console and QEMU's own words."""
    folder = house.layout.machines / machine
    for name in MACHINE_LOGS:
        with contextlib.suppress(OSError):
            log.add(name, (folder / name).read_text("utf-8", "replace"))
