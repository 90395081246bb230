"""Watching the console log of a machine for a panic."""

from __future__ import annotations

from pathlib import Path

from vm.errors import KernelPanicError
from vm.qemu.console import panic


class ConsoleWatch:
    """Looks at a console log, which is read again only where it has grown.

    :param name: of the machine, for messages.
    """

    def __init__(self, name: str, path: Path) -> None:
        self._name = name
        self._path = path
        self._seen = -1

    def forget(self) -> None:
        """Read the log again, whatever its size."""
        self._seen = -1

    def check(self, offset: int) -> None:
        """Raise if the log shows a panic; one that is not there, or not ours to read, shows none.

        :param offset: bytes that are of an earlier start.
        :raises KernelPanicError: it does.
        """
        text = self.grown(offset)
        if text is not None:
            self.judge(text)

    def grown(self, offset: int) -> str | None:
        """Return the log from ``offset`` on, or None where nothing was added since this was asked last."""
        try:
            size = self._path.stat().st_size
            if size == self._seen:
                return None
            with self._path.open("rb") as log:
                log.seek(offset if offset <= size else 0)  # libvirt's logger empties it at a start
                text = log.read().decode("utf-8", "replace")
        except OSError:
            return None
        self._seen = size
        return text

    def judge(self, text: str) -> None:
        """Raise if ``text`` has a panic, at each look anew.

        :raises KernelPanicError: it has.
        """
        event = panic(text)
        if event is not None:
            self._seen = -1
            raise KernelPanicError(f"the kernel of {self._name} panicked: {event.words}", f"see {self._path}")
