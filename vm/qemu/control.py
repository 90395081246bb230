"""The conversation with the guest's init on the second serial port; ``vm/guest/control.h`` is its other end."""

from __future__ import annotations

import contextlib
import secrets
import select
import socket
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from vm.deadline import Deadline
from vm.errors import HangError, MachineError
from vm.qemu.process import short_path

ENTROPY_BYTES = 32
_CHECK_SECONDS = 0.25
"""How often a wait looks whether the machine is still there."""


class Control:
    """A connection to the control channel of one machine.

    :param check: raises if the machine is gone.
    """

    def __init__(self, folder: Path, name: str, check: Callable[[], None]) -> None:
        self._check = check
        self._received = b""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with short_path(folder, name) as path:
                self._socket.connect(path)
        except OSError as error:
            self._socket.close()
            check()
            raise MachineError(f"the machine's control channel cannot be reached: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def wait_ready(self, deadline: Deadline) -> str:
        """Wait until sshd listens and return what ``uname -r`` prints.

        :raises HangError: not before the deadline.
        """
        while True:
            words = self._line(deadline, "the start of the machine").split()
            if len(words) == 2 and words[0] == "READY":
                return words[1]

    def resume(self, deadline: Deadline) -> None:
        """Set the clock of a restored machine and renew its random state.

        The time is right to what one line takes on a serial port, a few milliseconds.

        :raises MachineError: the guest could not. :raises HangError: it did not answer before the deadline.
        """
        line = f"resume {time.time_ns()} {secrets.token_hex(ENTROPY_BYTES)}"
        self._ask(line, deadline, "setting the restored machine's clock and random state")

    def settle(self, deadline: Deadline) -> None:
        """Wait until no SSH connection is left in the machine and its disks are written.

        :raises MachineError: a connection stays. :raises HangError: it did not answer before the deadline.
        """
        self._ask("settle", deadline, "waiting for the machine to settle")

    def _ask(self, request: str, deadline: Deadline, doing: str) -> None:
        self._send(f"{request}\n".encode())
        while True:
            answer = self._line(deadline, doing)
            if answer == "OK":
                return
            if answer.startswith("ERROR"):
                raise MachineError(f"{doing}: the guest answered {answer}")

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            self._check()
            raise MachineError(f"the machine's control channel broke: {error}") from error

    def _line(self, deadline: Deadline, doing: str) -> str:
        while b"\n" not in self._received:
            wait = min(_CHECK_SECONDS, deadline.remaining)
            readable, _, _ = select.select([self._socket], [], [], wait)
            if readable:
                chunk = b""
                with contextlib.suppress(OSError):
                    chunk = self._socket.recv(4096)
                if not chunk:
                    _gone(self._check)
                self._received += chunk
                continue
            self._check()
            if deadline.expired:
                raise HangError(
                    f"{doing} was not over within {deadline.total:.0f} s",
                    "the machine's console log has what it did last; a larger --timeout helps a slow host",
                )
        line, _, self._received = self._received.partition(b"\n")
        return line.decode("utf-8", "replace").strip()


def _gone(check: Callable[[], None]) -> None:
    """QEMU closed the channel: it is about to end, which takes it a moment."""
    for _ in range(200):
        check()
        time.sleep(0.01)
    raise MachineError("the machine closed its control channel but did not end")
