"""Building what watches: CO-RE objects with the tools root's clang, the loader and ``gotrace`` with Go.

Both are cached in ``layout.builds`` under the hash of their inputs, and written to a temporary name first, so that a
file that exists is whole. Both are the same bytes wherever they are built: no path of the host goes in.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from vm.errors import SetupError
from vm.paths import Layout
from vm.process import run
from vm.tools import ToolsRoot

SOURCES = Path(__file__).resolve().parent / "src"
"""The CO-RE programs."""

LOADER = Path(__file__).resolve().parent / "loader"
"""The loader's Go module."""

GOTRACE = Path(__file__).resolve().parent / "gotrace"
"""The Go module of what summarises recordings of runtime/trace on the host."""

OBJECT = "go.bpf.o"
"""Name of the one object: all programs share maps and type information."""

CLANG_FLAGS = (
    "-target",
    "bpf",
    # Instructions of version 2: 5.10's verifier follows the bounds of 64-bit registers best.
    "-mcpu=v2",
    "-O2",
    "-g",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-unused-parameter",
    # Nothing from the host's own headers, and no path of this build in the type information.
    "-nostdinc",
    "-fdebug-compilation-dir=.",
)

GO_VERSION = "1.27.3"
"""Go that builds the loader and ``gotrace``: the wheel of requirements.txt."""

GO_FLAGS = ("-trimpath", "-buildvcs=false", "-mod=readonly", "-ldflags=-s -w")

GO_ENVIRONMENT = {
    "CGO_ENABLED": "0",
    "GOOS": "linux",
    "GOARCH": "amd64",
    "GOAMD64": "v1",
    "GOTOOLCHAIN": "local",
    "GOWORK": "off",
    "GOFLAGS": "-modcacherw",
}

_PASSED_ON = re.compile(
    r"GO(PROXY|SUMDB|NOSUMDB|NOPROXY|NOSUMCHECK|PRIVATE|INSECURE|AUTH)|(https?|no|all)_proxy|SSL_CERT_(FILE|DIR)",
    re.IGNORECASE,
)
"""How this host reaches Go modules is its own affair: no variable of it shapes a byte (go.sum has the hashes)."""


def objects(layout: Layout, tools: ToolsRoot) -> Path:
    """Return the CO-RE object, built if its inputs have changed.

    :raises BuildError: it does not compile; the hint has clang's words.
    :raises SetupError: the tools root has no clang.
    """
    inputs = [*sorted(SOURCES.glob("*.[ch]"))]
    key = _key([tools.sha256, *CLANG_FLAGS], inputs)

    def build(target: Path) -> None:
        headers = [word for folder in tools.include for word in ("-isystem", str(folder))]
        maps = [f"-fdebug-prefix-map={tools.root}=tools"]
        command = tools.command("clang", *CLANG_FLAGS, *maps, *headers, "-c", "go.bpf.c", "-o", target)
        run(command, environment=tools.environment, cwd=SOURCES)
        # Debug sections go, type information (.BTF) stays: it is what the kernel and the relocations need.
        run(tools.command("llvm-strip", "-g", target), environment=tools.environment)

    return _cached(layout, f"objects-{key}.o", build)


def loader(layout: Layout) -> Path:
    """Return the loader ``labtrace``: static, and the same bytes everywhere.

    Its modules come through Go's ordinary client into a module cache of the lab's own; ``go.sum`` has their hashes.

    :raises BuildError: it does not compile, or a module cannot be had.
    :raises SetupError: Go is missing or another version.
    """
    return _module(layout, LOADER, "labtrace")


def gotrace(layout: Layout) -> Path:
    """Return ``gotrace``, which summarises recordings of runtime/trace (``bpf.gotrace``); built as the loader is.

    :raises BuildError: it does not compile, or a module cannot be had.
    :raises SetupError: Go is missing or another version.
    """
    return _module(layout, GOTRACE, "gotrace")


def _module(layout: Layout, folder: Path, name: str) -> Path:
    """Return the program of the Go module in ``folder``, built if its inputs have changed."""
    go = go_command()
    sources = [path for path in folder.glob("*.go") if not path.name.endswith("_test.go")]
    environment = GO_ENVIRONMENT | {name: value for name, value in os.environ.items() if _PASSED_ON.fullmatch(name)}
    environment |= {"GOMODCACHE": str(layout.toolchains / "modules"), "GOCACHE": str(layout.toolchains / "build")}
    key = _key([GO_VERSION, *GO_FLAGS, repr(GO_ENVIRONMENT)], sorted([*sources, folder / "go.mod", folder / "go.sum"]))

    def build(target: Path) -> None:
        _check_version(go, environment, folder)
        run([go, "build", *GO_FLAGS, "-o", target, "."], environment=environment, cwd=folder)

    return _cached(layout, f"{name}-{key}", build)


def go_command() -> Path:
    """Return the ``go`` beside this Python.

    :raises SetupError: there is none.
    """
    go = Path(sys.executable).with_name("go")
    if not go.exists():
        raise SetupError("Go is not installed beside this Python", "Run ./setup.sh")
    return go


def _check_version(go: Path, environment: dict[str, str], folder: Path) -> None:
    version = run([go, "env", "GOVERSION"], environment=environment, cwd=folder).decode().strip()
    if version != f"go{GO_VERSION}":
        raise SetupError(f"the {folder.name} is built with go{GO_VERSION}, but this is {version}", "Run ./setup.sh")


def _key(words: Sequence[str], files: Iterable[Path]) -> str:
    """Return a hash over words and over names and contents of files."""
    digest = hashlib.sha256("\0".join(words).encode())
    for path in files:
        digest.update(f"\0{path.name}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:24]


def _cached(layout: Layout, name: str, build: Callable[[Path], None]) -> Path:
    """Return ``name`` of the build cache; where it is missing, ``build`` is called with a path to write it to."""
    final = layout.builds / name
    if final.exists():
        return final
    layout.builds.mkdir(parents=True, exist_ok=True)
    with _temporary(layout.builds) as folder:
        made = folder / name
        build(made)
        made.replace(final)
    return final


@contextlib.contextmanager
def _temporary(parent: Path) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix=".building-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
