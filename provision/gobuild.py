"""Building Go workloads: static, reproducible, cached by the hash of all inputs."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from go_labs.spec import LABS
from provision.atomic import alone, staging
from provision.toolchains import Toolchain
from vm import process
from vm.artefacts import disk, sha256_file
from vm.errors import BuildError, IntegrityError, SetupError, UsageError
from vm.paths import Layout

_FORMAT = 1
"""Part of every hash; raised when the way of building changes."""

_SUM = "sha256"
_LOCAL_REPLACE = re.compile(r'^(?!\s*//).*=>\s*"?((?:\.{1,2}(?![\w.-])|/)[^"\n]*?)"?\s*(?://.*)?$', re.MULTILINE)
"""A folder in a replacement, in quotes where its name has a space (Go Modules Reference, "Lexical elements")."""

_LABKIT = b'"kmlab/labkit"'
"""How a program imports what the labs share."""

_FETCHING = ("GOPROXY", "GOSUMDB", "GOPRIVATE", "GONOPROXY", "GONOSUMDB", "GOINSECURE", "GOAUTH")
"""Settings of Go that say where modules come from; all others that the host has are left out."""

_PASSED = (
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
)


@dataclass(frozen=True, slots=True)
class Variant:
    """How a program is linked.

    :param pie: position-independent, which needs the dynamic loader to start; everything else is static.
    :param stripped: without symbol table and DWARF.
    :param tags: build tags.
    """

    pie: bool = False
    stripped: bool = False
    tags: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What it is called in records: ``plain``, ``stripped``, ``pie`` or ``stripped,pie``."""
        return ",".join(word for word, true in (("stripped", self.stripped), ("pie", self.pie)) if true) or "plain"

    def flags(self) -> list[str]:
        """Return the flags of ``go build`` for it."""
        chosen = ["-buildmode=pie"] if self.pie else ["-buildmode=exe"]
        if self.stripped:
            chosen.append("-ldflags=-s -w")
        if self.tags:
            chosen.append(f"-tags={','.join(self.tags)}")
        return chosen


PLAIN = Variant()
"""Static, with symbols and DWARF."""

WORDS = ("plain", "stripped", "pie")
"""What ``--build`` knows; ``stripped,pie`` (or ``stripped+pie``) is both."""


def variant(text: str) -> Variant:
    """Return what ``--build`` means: :data:`WORDS`, joined by a comma or a plus.

    :raises UsageError: a word is not known, or ``plain`` stands beside another.
    """
    words = [word.strip() for word in text.replace("+", ",").split(",")]
    for word in words:
        if word not in WORDS:
            near = difflib.get_close_matches(word, WORDS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there is: {', '.join(WORDS)}"
            raise UsageError(f"--build {word!r} is not known", hint)
    if "plain" in words and len(set(words)) > 1:
        raise UsageError(f"--build {text!r} is plain and something else", "leave plain away, or the rest")
    return Variant(pie="pie" in words, stripped="stripped" in words)


def build(folder: Path, toolchain: Toolchain, layout: Layout, variant: Variant = PLAIN) -> Path:
    """Build the Go package in ``folder`` and return the program; it is called like the folder.

    The program comes from the cache if it was built before from the same sources (those of the whole module, and of
    modules that ``go.mod`` replaces by local folders), toolchain and variant, and still has the same bytes.

    :raises BuildError: the folder is in no Go module, or does not compile; the hint has the compiler's words.
    :raises SetupError: the toolchain cannot be run.
    :raises DiskFullError: no space is left.
    """
    folder = folder.resolve()
    module = find_module(folder)
    inputs = inputs_hash(folder, module, toolchain, variant)
    name = f"{folder.name}-{inputs[:24]}"
    target = layout.builds / name
    with alone(layout.builds, folder.name):
        if _is_whole(target, folder.name):
            return target / folder.name
        with staging(layout.builds) as stage:
            result = stage / "result"
            result.mkdir()
            program = result / folder.name
            _compile(folder, program, toolchain, layout, variant)
            (result / _SUM).write_text(sha256_file(program) + "\n", "ascii")
            if target.exists():  # Damaged, or it would have been used.
                target.rename(stage / "old")
            result.rename(target)
    return target / folder.name


def compiler_words(folder: Path, toolchain: Toolchain, layout: Layout, flags: Sequence[str]) -> bytes:
    """Return what the compiler says of the package in ``folder`` under ``flags``: lines of ``file:line:column: words``.

    Go keeps the compiler's words beside what it compiled, so that a build from its cache says them again.

    :raises BuildError: see :func:`build`; also for a flag that this version of the compiler does not have.
    """
    said: list[bytes] = []
    folder = folder.resolve()
    find_module(folder)
    with staging(layout.builds) as stage:
        _compile(folder, stage / folder.name, toolchain, layout, PLAIN, (f"-gcflags={' '.join(flags)}",), said.append)
    return b"".join(said)


def find_module(folder: Path) -> Path:
    """Return the folder with the ``go.mod`` that ``folder`` belongs to.

    :raises BuildError: there is none, or no Go source.
    """
    if not any(folder.glob("*.go")):
        raise BuildError(f"{folder} has no Go source", "give the folder of a Go program")
    for parent in (folder, *folder.parents):
        if (parent / "go.mod").is_file():
            return parent
    raise BuildError(f"{folder} is in no Go module", f"run `go mod init NAME` in {folder}")


def check_labkit(folder: Path) -> None:
    """Refuse a program that imports labkit from a module that does not lead to it, as after a checkout was moved.

    ``go build`` would look for kmlab on the network, or say to.

    :raises BuildError: see above, and :func:`find_module`.
    """
    module = find_module(folder)
    imports = any(_LABKIT in path.read_bytes() for path in folder.glob("*.go"))
    if imports and not any(_is_kmlab(root) for root in _modules(module)):
        way = f"go mod edit -require kmlab@v0.0.0 -replace kmlab={LABS}"
        raise BuildError(f"{module / 'go.mod'} leads to no kmlab, whose labkit is imported", f"in {module}: {way}")


def _is_kmlab(root: Path) -> bool:
    """Whether the module in ``root`` is that of the labs, this checkout's or another one's."""
    file = root / "go.mod"
    return file.is_file() and re.search(rb"^module kmlab\s*$", file.read_bytes(), re.MULTILINE) is not None


def inputs_hash(folder: Path, module: Path, toolchain: Toolchain, variant: Variant) -> str:
    """Return the SHA-256 over all that shapes the program: sources, package, Go version, variant.

    :raises BuildError: a source cannot be read.
    """
    digest = hashlib.sha256()
    head = {"format": _FORMAT, "go": toolchain.version, "package": str(folder.relative_to(module)), **asdict(variant)}
    digest.update(json.dumps(head, sort_keys=True).encode())
    try:
        for root in _modules(module):
            for path in _sources(root):
                name = f"\0{root.name if root != module else ''}/{path.relative_to(root)}\0"
                digest.update(name.encode("utf-8", "surrogateescape") + hashlib.sha256(path.read_bytes()).digest())
    except OSError as error:
        raise BuildError(f"a source of {folder} cannot be read: {error}", "check its permissions") from error
    return digest.hexdigest()


def _modules(module: Path) -> list[Path]:
    """Return ``module`` and the local folders that its ``go.mod`` replaces modules by."""
    text = (module / "go.mod").read_text("utf-8", "surrogateescape")
    replaced = [(module / match).resolve() for match in _LOCAL_REPLACE.findall(text)]
    return [module, *(path for path in replaced if path.is_dir())]


def _sources(root: Path) -> Iterator[Path]:
    """Give every file that can shape a build: all of them, since any can be embedded; hidden ones and tests cannot."""
    for path in sorted(root.rglob("*")):
        parts = path.relative_to(root).parts
        if any(part.startswith(".") or part == "__pycache__" for part in parts) or path.name.endswith("_test.go"):
            continue
        if path.is_file():
            yield path


def _is_whole(target: Path, name: str) -> bool:
    try:
        return (target / _SUM).read_text("ascii").strip() == sha256_file(target / name)
    except (OSError, UnicodeDecodeError, IntegrityError):
        return False


def _compile(
    folder: Path,
    program: Path,
    toolchain: Toolchain,
    layout: Layout,
    variant: Variant,
    flags: Sequence[str] = (),
    words_to: Callable[[bytes], object] | None = None,
) -> None:
    words: list[str | Path] = [toolchain.go, "build", "-trimpath", "-buildvcs=false", "-modcacherw", *variant.flags()]
    words += flags
    words += ["-o", program, "."]
    with disk(layout.builds):
        temporary = program.parent / "tmp"
        temporary.mkdir()
    try:
        process.run(words, environment=_environment(toolchain, layout, temporary), cwd=folder, words_to=words_to)
    except BuildError as error:
        raise BuildError(f"{folder.name} does not build with Go {toolchain.version}", error.hint) from error
    except PermissionError as error:
        raise SetupError(f"{toolchain.go} cannot be run", f"remove {toolchain.goroot} and try again") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _environment(toolchain: Toolchain, layout: Layout, temporary: Path) -> dict[str, str]:
    """Return what ``go`` sees: nothing of the host's settings but where modules are fetched from."""
    passed = {name: os.environ[name] for name in (*_FETCHING, *_PASSED) if name in os.environ}
    host = {name: os.environ[name] for name in ("GOENV", "XDG_CONFIG_HOME") if name in os.environ}
    asked = process.run(
        [toolchain.go, "env", "-json", *_FETCHING], environment={"GOTOOLCHAIN": "local", **host, **passed}
    )
    fetching = {name: value for name, value in json.loads(asked).items() if value}
    return {
        **passed,
        **fetching,
        "GOENV": "off",
        "GOWORK": "off",
        "GOTOOLCHAIN": "local",
        "GOTELEMETRY": "off",
        "GOOS": "linux",
        "GOARCH": "amd64",
        "GOAMD64": "v1",
        "CGO_ENABLED": "0",
        # The same caches as the loader's (bpf/build.py): Go keys them by content and toolchain.
        "GOCACHE": str(layout.toolchains / "build"),
        "GOMODCACHE": str(layout.toolchains / "modules"),
        "GOPATH": str(layout.toolchains / "path"),
        "TMPDIR": str(temporary),
    }
