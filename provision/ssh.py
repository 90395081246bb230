"""One typed adapter around paramiko.

paramiko has no types of its own, and its errors say little to the person who meets them; nothing else in the lab
imports it. The connection is strict: the host key is known before the machine starts, and any other key is refused.
"""

from __future__ import annotations

import contextlib
import io
import logging
import select
import shlex
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import BinaryIO

import paramiko
from paramiko.pkey import UnknownKeyType
from paramiko.ssh_exception import IncompatiblePeer

from vm.deadline import Deadline
from vm.errors import HangError, IntegrityError, Interrupted, OutputError, SshError
from vm.machine import SshTarget

CHUNK = 256 * 1024
"""Bytes that are moved at once in either direction."""

OUTPUT_LIMIT = 64 * 1024 * 1024
"""Bytes of one command's output that are kept before the command counts as running away."""

ATTEMPT_SECONDS = 10.0
"""Seconds that one attempt gets from TCP connect to the end of the key exchange, which takes 0.5 s under emulation."""

STOP_SECONDS = 5.0
"""Seconds that a command's thread gets to close its channel after the wait for it was cut short."""

# paramiko reports what it also raises, on a logger that prints to stderr where nobody configured one.
logging.getLogger("paramiko").addHandler(logging.NullHandler())
logging.getLogger("paramiko").propagate = False


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that ended.

    :param command: what it is called in messages.
    :param status: exit status; 128 + signal where a signal ended it.
    """

    command: str
    status: int
    stdout: bytes = field(repr=False)
    stderr: bytes = field(repr=False)

    def text(self) -> str:
        """Return stdout as text, with undecodable bytes replaced and surrounding white space removed."""
        return self.stdout.decode("utf-8", "replace").strip()

    def check(self) -> Completed:
        """Return itself, or raise :class:`~vm.errors.SshError` with the command's last words if it failed."""
        if self.status != 0:
            words = self.stderr.decode("utf-8", "replace").strip().splitlines()
            last = words[-1] if words else "it said nothing"
            raise SshError(f"{self.command} ended with status {self.status} in the machine: {last}")
        return self


def connect(target: SshTarget, deadline: Deadline, alive: Callable[[], None] = lambda: None) -> Shell:
    """Connect to ``target``, retrying until its sshd answers or ``deadline`` is over.

    A TCP connect through QEMU's user networking always succeeds, so the banner is what tells that sshd is there.

    :param alive: called between attempts; raises if the machine is gone (QEMU died, the kernel panicked).
    :raises HangError: no banner before the deadline.
    :raises IntegrityError: the machine showed another host key.
    :raises SshError: sshd answered and refused.
    """
    key = _private_key(target)
    while True:
        alive()
        deadline.check("connecting over SSH", "the console log of the machine may say why; --cold starts it anew")
        transport = _transport(target, deadline)
        if transport is not None and _logged_in(transport, target, key):
            transport.set_keepalive(target.keepalive)
            return Shell(transport, target)
        time.sleep(0.02)


def _private_key(target: SshTarget) -> paramiko.PKey:
    """Return the key to log in with, of whichever kind: Vagrant makes RSA keys, newer versions of it Ed25519.

    :raises SshError: it cannot be read.
    """
    try:
        return paramiko.PKey.from_path(target.private_key)
    except (OSError, ValueError, TypeError, paramiko.SSHException, UnknownKeyType) as error:
        raise SshError(f"the machine's private key {target.private_key} cannot be read: {error}") from error


def _logged_in(transport: paramiko.Transport, target: SshTarget, key: paramiko.PKey) -> bool:
    """Check the host key and log in; return whether the connection lasted that long.

    sshd ends one that has not logged in after two minutes of its machine's time, which is two seconds of the host's on
    a counted clock.
    """
    try:
        shown = transport.get_remote_server_key()
        if f"{shown.get_name()} {shown.get_base64()}" != " ".join(target.host_key.split()[:2]):
            raise IntegrityError(
                f"{target.host}:{target.port} showed a host key that is not this machine's",
                "another program may have taken the port; start the machine again",
            )
        transport.auth_publickey(target.user, key)
    except paramiko.SSHException as error:
        broken = not transport.is_active()
        transport.close()
        if broken:
            return False
        raise SshError(f"the machine's sshd refused the key of {target.user}: {error}") from error
    except BaseException:
        transport.close()
        raise
    return True


def _transport(target: SshTarget, deadline: Deadline) -> paramiko.Transport | None:
    """Return a transport whose key exchange is done, or None if sshd is not there yet."""
    try:
        sock = socket.create_connection((target.host, target.port), timeout=max(0.05, min(5.0, deadline.remaining)))
    except OSError:
        return None
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    transport = paramiko.Transport(sock, default_window_size=16 * 1024 * 1024, default_max_packet_size=CHUNK)
    patience = max(0.1, deadline.within(ATTEMPT_SECONDS).remaining)
    transport.banner_timeout = patience
    try:
        transport.start_client(timeout=patience)
        transport.get_remote_server_key()  # start_client returns without an error when its time is over
    except IncompatiblePeer as error:
        transport.close()
        raise SshError(f"the machine's sshd and this program share no algorithm: {error}") from error
    except (paramiko.SSHException, EOFError, OSError):
        transport.close()
        return None
    return transport


class Shell:
    """A kept connection to a machine: commands, and streams in and out."""

    def __init__(self, transport: paramiko.Transport, target: SshTarget) -> None:
        self._transport = transport
        self.target = target

    def __enter__(self) -> Shell:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; commands that still run lose their terminal, not their life."""
        self._transport.close()

    def run(
        self,
        command: str | Sequence[str],
        deadline: Deadline,
        stdin: bytes | BinaryIO | None = None,
        stdout: BinaryIO | None = None,
        stderr: BinaryIO | None = None,
        limit: int = OUTPUT_LIMIT,
        alive: Callable[[], None] = lambda: None,
        name: str = "",
    ) -> Completed:
        """Run ``command`` and wait for its end.

        :param command: a shell command, or words that are quoted; ``name``: what errors call it instead.
        :param stdin: what it reads; a file is streamed.
        :param stdout: and ``stderr``: where its outputs go as they come; kept in the result if not given.
        :param limit: bytes of output after which it is cut off.
        :param alive: called about once a second; raises if the machine is gone.
        :raises HangError: not over by ``deadline``. :raises OutputError: more than ``limit`` bytes.
        :raises SshError: the connection broke.
        """
        words = command if isinstance(command, str) else shlex.join(command)
        stop = threading.Event()

        def work() -> Completed:
            with self._channel(deadline) as channel:
                channel.exec_command(words)
                exchange = _Exchange(channel, name or f"`{words}`", deadline, limit, alive, stop)
                out, err = exchange.pump(stdin, stdout, stderr)
                return Completed(name or f"`{words}`", exchange.status(), out, err)

        return _apart(work, stop)

    @contextlib.contextmanager
    def _channel(self, deadline: Deadline) -> Iterator[paramiko.Channel]:
        try:
            channel = self._transport.open_session(timeout=max(0.1, deadline.remaining))
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise SshError(f"the SSH connection to the machine broke: {error or 'closed by the machine'}") from error
        try:
            yield channel
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise SshError(f"the SSH connection to the machine broke: {error or 'closed by the machine'}") from error
        finally:
            # A connection that is gone cannot take the word that a channel is closed; that must hide no other error.
            with contextlib.suppress(paramiko.SSHException, EOFError, OSError):
                channel.close()

    def interactive_channel(self, command: str | None, term: str, columns: int, rows: int) -> paramiko.Channel:
        """Open a channel with a terminal: a login shell, or ``command``. The caller owns and closes it."""
        channel = self._transport.open_session()
        channel.get_pty(term, columns, rows)
        if command is None:
            channel.invoke_shell()
        else:
            channel.exec_command(command)
        return channel


def _apart(work: Callable[[], Completed], stop: threading.Event) -> Completed:
    """Do ``work`` in a thread that no signal reaches; when the wait for it is cut short, set ``stop`` and let it end.

    paramiko takes its locks before it enters ``try``. An exception that a signal's handler raises just there leaves a
    lock held for good, and closing the channel then waits for it. Handlers run in the main thread alone.
    """
    future: Future[Completed] = Future()

    def body() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    thread = threading.Thread(target=body, name="ssh", daemon=True)
    try:
        thread.start()
        return future.result()
    finally:
        stop.set()
        if thread.ident is not None:
            thread.join(STOP_SECONDS)


class _Exchange:
    """Moves bytes of one command in both directions until it ends."""

    def __init__(
        self,
        channel: paramiko.Channel,
        name: str,
        deadline: Deadline,
        limit: int,
        alive: Callable[[], None],
        stop: threading.Event,
    ) -> None:
        self._channel = channel
        self._name = name
        self._deadline = deadline
        self._limit = limit
        self._alive = alive
        self._stop = stop
        self._checked = time.monotonic()

    def pump(
        self, stdin: bytes | BinaryIO | None, stdout: BinaryIO | None, stderr: BinaryIO | None
    ) -> tuple[bytes, bytes]:
        """Feed stdin, deliver both outputs, and return what was kept of them."""
        channel = self._channel
        out, err = io.BytesIO(), io.BytesIO()
        source = self._feed(stdin)
        feeding = next(source, None) is not None
        total = 0
        while True:
            moved = _drain(channel.recv_ready, channel.recv, stdout or out)
            moved += _drain(channel.recv_stderr_ready, channel.recv_stderr, stderr or err)
            total += moved
            if total > self._limit:
                raise OutputError(f"{self._name} wrote more than {self._limit >> 20} MiB", "its output was cut off")
            if feeding:
                feeding = next(source, None) is not None
            elif not moved:
                if channel.exit_status_ready() and (channel.eof_received or channel.closed) and not self._pending():
                    return out.getvalue(), err.getvalue()
                select.select([channel], [], [], 0.05)
            self._tick()

    def _pending(self) -> bool:
        return self._channel.recv_ready() or self._channel.recv_stderr_ready()

    def _feed(self, stdin: bytes | BinaryIO | None) -> Iterator[bool]:
        """Send stdin in pieces as the window allows, then close that direction. A command need not read it all."""
        channel = self._channel
        try:
            for piece in _pieces(stdin):
                view = memoryview(piece)
                while view:
                    if channel.closed or channel.exit_status_ready():
                        return
                    if channel.send_ready():
                        view = view[channel.send(bytes(view)) :]
                    else:
                        time.sleep(0.001)
                    yield True
            channel.shutdown_write()
        except OSError:
            return  # the command ended meanwhile; what it left is still to be read

    def _tick(self) -> None:
        if self._stop.is_set():
            raise Interrupted(f"{self._name} was given up", "what was finished is kept")
        if self._deadline.expired:
            raise HangError(
                f"{self._name} was not over within {self._deadline.total:.0f} s",
                "the machine still answered when it was started; the lab's time-out is in its lab.toml",
            )
        if time.monotonic() - self._checked > 1.0:
            self._checked = time.monotonic()
            self._alive()
            if not self._channel.get_transport().is_active():
                raise SshError("the SSH connection to the machine broke while a command was running")

    def status(self) -> int:
        """Return the command's exit status; 255 where the machine sent none (a signal, or the connection broke)."""
        status = self._channel.recv_exit_status()
        return 255 if status < 0 else status


def _pieces(stdin: bytes | BinaryIO | None) -> Iterator[bytes]:
    """Cut what a command reads into chunks."""
    if isinstance(stdin, bytes):
        yield from (stdin[i : i + CHUNK] for i in range(0, len(stdin), CHUNK))
    elif stdin is not None:
        yield from iter(lambda: stdin.read(CHUNK), b"")


def _drain(ready: Callable[[], bool], receive: Callable[[int], bytes], sink: BinaryIO) -> int:
    """Write what has arrived into ``sink``; return the bytes moved."""
    moved = 0
    while ready():
        data = receive(CHUNK)
        sink.write(data)
        moved += len(data)
    if moved:
        sink.flush()
    return moved
