"""A small real SSH server on loopback, so that the adapter is tested against the protocol and not against a double."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import paramiko

from vm.machine import SshTarget


class _Server(paramiko.ServerInterface):
    """Accepts one key for one user, and runs commands with the host's shell."""

    def __init__(self, accepted: paramiko.PKey, dropped: socket.socket | None) -> None:
        self.accepted = accepted
        self.dropped = dropped

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        if self.dropped is not None:
            self.dropped.shutdown(socket.SHUT_RDWR)
        fits = username == "root" and key == self.accepted
        return paramiko.common.AUTH_SUCCESSFUL if fits else paramiko.common.AUTH_FAILED

    def get_allowed_auths(self, username: str) -> str:  # noqa: ARG002 - paramiko's signature
        return "publickey"

    def check_channel_request(self, kind: str, chanid: int) -> int:  # noqa: ARG002 - paramiko's signature
        return paramiko.common.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        threading.Thread(target=_execute, args=(channel, command), daemon=True).start()
        return True


def _execute(channel: paramiko.Channel, command: bytes) -> None:
    """Run ``command`` with its three streams on ``channel``."""
    process = subprocess.Popen(
        ["/bin/sh", "-c", command.decode()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin
    assert process.stdout
    assert process.stderr

    def feed() -> None:
        with contextlib.suppress(OSError), process.stdin as stdin:  # type: ignore[union-attr]
            while data := channel.recv(65536):
                stdin.write(data)

    def copy_errors() -> None:
        while data := process.stderr.read1(65536):  # type: ignore[union-attr]
            channel.sendall_stderr(data)

    threads = [threading.Thread(target=target, daemon=True) for target in (feed, copy_errors)]
    for thread in threads:
        thread.start()
    with contextlib.suppress(OSError, EOFError):
        while data := process.stdout.read1(65536):  # type: ignore[attr-defined]
            channel.sendall(data)
    if channel.closed:
        process.kill()
    threads[1].join()
    # The client ends its side once it has the answer to its request, which a quick command must not overtake.
    threads[0].join(5)
    with contextlib.suppress(OSError, EOFError):
        status = process.wait()
        channel.send_exit_status(status if status >= 0 else 255)  # sshd tells the signal, which comes to the same
        channel.close()


@contextlib.contextmanager
def serving(folder: Path, *, silent: bool = False, impatient: int = 0) -> Iterator[SshTarget]:
    """Serve on a free loopback port; yield how to reach it.

    ``silent`` accepts connections and never says a word; the first ``impatient`` ones are dropped during the login.
    """
    host_key = paramiko.Ed25519Key.from_private_key_file(str(_new_key(folder / "host")))
    client = _new_key(folder / "client")
    accepted = paramiko.Ed25519Key.from_private_key_file(str(client))
    listener = socket.create_server(("127.0.0.1", 0))
    transports: list[paramiko.Transport] = []
    kept: list[socket.socket] = []

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            if silent:
                kept.append(connection)
                continue
            transport = paramiko.Transport(connection)
            transport.add_server_key(host_key)
            transports.append(transport)
            with contextlib.suppress(paramiko.SSHException, EOFError, OSError):
                early = len(transports) <= impatient
                transport.start_server(server=_Server(accepted, connection if early else None))

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield SshTarget(
            host="127.0.0.1",
            port=listener.getsockname()[1],
            user="root",
            private_key=client,
            host_key=f"{host_key.get_name()} {host_key.get_base64()}",
        )
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
        for transport in transports:
            transport.close()
        for connection in kept:
            connection.close()


def _new_key(path: Path) -> Path:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    path.write_bytes(Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    path.chmod(0o600)
    return path
