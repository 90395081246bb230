"""What the tests of lock and downloads share: the recorded mirror, packages that can be read, a small file server."""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from vm import tree
from vm.kernels import Configuration, KernelConfig, RootConfig
from vm.mirror import ARCHIVES, Mirror
from vm.model import Package

FIXTURES = Path(__file__).parent / "fixtures"
KEYRING = FIXTURES / "test-archive.gpg"
TRIXIE = ["trixie", "trixie-updates", "trixie-security"]


def mirror_of(root: Path, extra: tuple[str, ...] = ()) -> Mirror:
    """The mirror below a folder."""
    return Mirror({archive: (f"file://{root}/{archive}",) for archive in ARCHIVES}, "test", extra)


def copy_archive(to: Path) -> Path:
    """A copy of the recorded mirror that a test may spoil."""
    shutil.copytree(FIXTURES / "archive", to)
    return to


def configuration(*lines: tuple[str, list[str]]) -> Configuration:
    """A small kernels.toml: kmod as tools, tini over the essential packages as base, and the lines given."""
    return Configuration(
        schema=1,
        flavour="cloud-amd64",
        tools=RootConfig(suites=TRIXIE, packages=["kmod"]),
        base=RootConfig(suites=TRIXIE, packages=["tini"], essential=True),
        boxes=RootConfig(suites=TRIXIE, packages=["tini"]),
        kernel={line: KernelConfig(suites=suites, support="default") for line, suites in lines},
    )


def deb(name: str, version: str, architecture: str, files: dict[str, bytes] | None = None) -> bytes:
    """A Debian package that can be read, of uncompressed members."""
    control = f"Package: {name}\nVersion: {version}\nArchitecture: {architecture}\n".encode()
    members = [("debian-binary", b"2.0\n")]
    for member, content in (("control.tar", {"control": control}), ("data.tar", files or {})):
        packed = io.BytesIO()
        tree.write_tar(tree.canonical(tree.file(path, data) for path, data in content.items()), packed, 0)
        members.append((member, packed.getvalue()))
    ar = b"!<arch>\n"
    for member, data in members:
        ar += f"{member:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode() + data + b"\n" * (len(data) % 2)
    return ar


def package(content: bytes, name: str = "tool", path: str = "pool/main/t/tool/tool_1.0_amd64.deb") -> Package:
    """The lock's entry of a file with this content."""
    return Package(
        name=name,
        version="1.0",
        architecture="amd64",
        archive="debian",
        path=path,
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )


@dataclass
class Server:
    """A file server on loopback that does as it is told.

    :param files: content by path.
    :param cut: paths whose next answer ends after so many bytes, as when a connection breaks.
    :param fail: paths whose next answers are 503, so many times.
    :param stall: paths whose answers stop half-way until the event is set.
    :param requests: path and Range header of each request.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    cut: dict[str, int] = field(default_factory=dict)
    fail: dict[str, int] = field(default_factory=dict)
    stall: dict[str, threading.Event] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)

    def mirror(self, extra: tuple[str, ...] = ()) -> Mirror:
        """This server as a mirror."""
        return Mirror({archive: (f"{self.url}/{archive}",) for archive in ARCHIVES}, "test", extra)


@contextmanager
def serving() -> Iterator[Server]:
    """Run a :class:`Server` on a free port of loopback."""
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            state.requests.append((self.path, self.headers.get("Range", "")))
            content = state.files.get(self.path)
            if state.fail.get(self.path, 0):
                state.fail[self.path] -= 1
                return self.answer(503, b"")
            if content is None:
                return self.answer(404, b"")
            match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            return self.answer(206, content[int(match[1]) :]) if match else self.answer(200, content)

        def answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            cut = state.cut.pop(self.path, None)
            if self.path in state.stall:
                self.wfile.write(body[: len(body) // 2])
                state.stall[self.path].wait(60)
                body = body[len(body) // 2 :]
            self.wfile.write(body[:cut])
            if cut is not None:
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
