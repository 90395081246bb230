"""An interactive login in a machine, with the person's own terminal in raw mode."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from types import FrameType

import paramiko

from provision.ssh import CHUNK, Shell
from vm.deadline import Deadline
from vm.errors import SshError, UsageError

UNBOUNDED = 1 << 62
"""Bytes of output that a person's own command may write: what they ask for they get."""


def interactive(shell: Shell, command: str | None = None) -> int:
    """Join the person's terminal to a login shell (or ``command``) of the machine; return its exit status.

    :raises UsageError: stdin is no terminal. :raises SshError: the connection broke.
    """
    if not sys.stdin.isatty():
        raise UsageError("an interactive login needs a terminal", "give --command 'COMMAND' to run one command")
    size = os.get_terminal_size(sys.stdin.fileno())
    channel = shell.interactive_channel(command, os.environ.get("TERM", "vt100"), size.columns, size.lines)
    with contextlib.closing(channel), _raw_terminal(), _following_size(channel):
        try:
            _relay(channel)
        except OSError as error:
            raise SshError(f"the SSH connection to the machine broke: {error}") from error
        status = channel.recv_exit_status()
    return 255 if status < 0 else status


def passthrough(shell: Shell, command: str, deadline: Deadline, alive: Callable[[], None]) -> int:
    """Run ``command`` with its outputs on this process's own as they come, and return its exit status."""
    sinks = sys.stdout.buffer, sys.stderr.buffer
    return shell.run(command, deadline, stdout=sinks[0], stderr=sinks[1], limit=UNBOUNDED, alive=alive).status


@contextlib.contextmanager
def _raw_terminal() -> Iterator[None]:
    """Set the terminal to raw mode, and back whatever happens."""
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _following_size(channel: paramiko.Channel) -> Iterator[None]:
    """Tell the machine each time the window changes its size."""

    def resized(_signal: int, _frame: FrameType | None) -> None:
        size = os.get_terminal_size(sys.stdin.fileno())
        with contextlib.suppress(paramiko.SSHException):
            channel.resize_pty(size.columns, size.lines)

    before = signal.signal(signal.SIGWINCH, resized)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)


def _relay(channel: paramiko.Channel) -> None:
    """Carry bytes both ways until the machine closes the channel."""
    source = sys.stdin.fileno()
    sources: list[int | paramiko.Channel] = [channel, source]
    while True:
        ready, _, _ = select.select(sources, [], [])
        if channel in ready:
            data = channel.recv(CHUNK)
            if not data:
                return
            os.write(sys.stdout.fileno(), data)
        if source in ready:
            typed = os.read(source, 4096)
            if typed:
                channel.sendall(typed)
            else:
                channel.shutdown_write()
                sources.remove(source)
