"""QEMU's machine protocol through qemu.qmp, QEMU's own client, for code that is not asynchronous."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Coroutine
from types import TracebackType
from typing import Self, TypeVar

from qemu.qmp import ExecuteError, QMPClient, QMPError

from vm.deadline import Deadline
from vm.errors import HangError, MachineError, QemuDiedError

T = TypeVar("T")

# The client logs what it also raises.
logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL + 1)

_FORWARD = re.compile(r"TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)\s")
_POLL_SECONDS = 0.002


class Qmp:
    """A connection to one QEMU. As a context manager it closes itself; QEMU then waits for the next client."""

    def __init__(self, path: str, deadline: Deadline) -> None:
        """Connect and negotiate.

        :param path: of the socket, short enough for ``sun_path`` (108 bytes).
        :raises QemuDiedError: nobody answers there. :raises HangError: not before the deadline.
        """
        self._loop = asyncio.new_event_loop()
        self._client = QMPClient("kmlab")
        try:
            self._await(self._client.connect(path), deadline, "connecting to QEMU")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Disconnect."""
        if self._loop.is_closed():
            return
        with contextlib.suppress(QMPError, OSError, TimeoutError, EOFError):
            self._loop.run_until_complete(asyncio.wait_for(self._client.disconnect(), 2.0))
        self._loop.close()

    def _await(self, what: Coroutine[object, object, T], deadline: Deadline, doing: str) -> T:
        try:
            return self._loop.run_until_complete(asyncio.wait_for(what, max(deadline.remaining, 0.001)))
        except TimeoutError as error:
            raise HangError(f"{doing}: QEMU did not answer within {deadline.total:.0f} s") from error
        except ExecuteError as error:
            raise MachineError(f"{doing}: QEMU refused: {error}") from error
        except (QMPError, OSError, EOFError) as error:
            raise QemuDiedError(f"{doing}: QEMU is gone ({type(error).__name__})") from error

    def execute(self, command: str, deadline: Deadline, arguments: dict[str, object] | None = None) -> object:
        """Run one command and return what it returns.

        :raises MachineError: QEMU refused it. :raises QemuDiedError: QEMU is gone. :raises HangError: out of time.
        """
        result: object = self._await(self._client.execute(command, arguments), deadline, command)
        return result

    def forwarded_port(self, deadline: Deadline) -> int:
        """Return the loopback port that leads to the guest's sshd."""
        text = self.execute("human-monitor-command", deadline, {"command-line": "info usernet"})
        found = _FORWARD.search(str(text))
        if not found:
            raise MachineError("QEMU forwards no port to the machine")
        return int(found[1])

    def cpu_threads(self, deadline: Deadline) -> list[int]:
        """Return the host's threads that run the guest's CPUs; one for all of them where they take turns."""
        answer = self.execute("query-cpus-fast", deadline)
        rows = answer if isinstance(answer, list) else []
        return sorted({int(row["thread-id"]) for row in rows if isinstance(row, dict)})

    def save(self, path: str, deadline: Deadline) -> None:
        """Stop the machine and write its memory and devices to ``path``. It stays stopped."""
        self.execute("stop", deadline)
        self._mapped_ram(deadline)
        self.execute("migrate", deadline, {"uri": f"file:{path}"})
        self._migrated("saving the machine's state", deadline)

    def restore(self, path: str, deadline: Deadline) -> None:
        """Read what :meth:`save` wrote into a QEMU that waits for it. The machine stays stopped."""
        self._mapped_ram(deadline)
        self.execute("migrate-incoming", deadline, {"uri": f"file:{path}"})
        self._migrated("restoring the machine's state", deadline)

    def _mapped_ram(self, deadline: Deadline) -> None:
        # mapped-ram (QEMU 9.0): each page has a fixed place in the file, so that the file is sparse and read in one go.
        capability = {"capability": "mapped-ram", "state": True}
        self.execute("migrate-set-capabilities", deadline, {"capabilities": [capability]})

    def _migrated(self, doing: str, deadline: Deadline) -> None:
        while True:
            answer = self.execute("query-migrate", deadline)
            status = answer.get("status") if isinstance(answer, dict) else None
            if status == "completed":
                return
            if status in ("failed", "cancelled"):
                words = answer.get("error-desc", "") if isinstance(answer, dict) else ""
                raise MachineError(f"{doing} failed: {words or status}")
            deadline.check(doing)
            self._await(asyncio.sleep(_POLL_SECONDS), deadline, doing)
