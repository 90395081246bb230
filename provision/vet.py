"""What ``go vet`` says of a lab's packages: the static tool that comes with the Go version that a run uses."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from provision import gobuild
from provision.atomic import staging
from provision.toolchains import Toolchain
from vm import process
from vm.errors import BuildError
from vm.paths import Layout


def words(folder: Path, toolchain: Toolchain, layout: Layout, packages: Sequence[str]) -> bytes:
    """Return what ``go vet`` finds in ``packages``, folders below ``folder``; empty where it finds nothing.

    Lines are ``file:line:column: analyzer: words``.

    :raises BuildError: a package does not compile, or vet's words cannot be read; the hint has them.
    """
    said: list[bytes] = []
    with staging(layout.builds) as stage:
        command: list[str | Path] = [toolchain.go, "vet", "-json", *(f"./{package}" for package in packages)]
        try:
            output = process.run(
                command,
                environment=gobuild.environment(toolchain, layout, stage),
                cwd=folder.resolve(),
                words_to=said.append,
            )
        except BuildError as error:
            raise BuildError(f"go vet of Go {toolchain.version} cannot read {folder.name}", error.hint) from error
    # To stderr before Go 1.26, to stdout since.
    try:
        found = [line for document in _documents(b"".join(said) + output) for line in _lines(document)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BuildError(f"what go vet says of {folder.name} cannot be read", str(error)) from error
    return "".join(f"{line}\n" for line in sorted(set(found))).encode()


def _documents(output: bytes) -> Iterator[Any]:
    """Give the JSON documents, one a package, with lines of ``# package`` between them."""
    text = "\n".join(line for line in output.decode("utf-8", "replace").splitlines() if not line.startswith("#"))
    decoder, at = json.JSONDecoder(), 0
    while at < len(text.rstrip()):
        at += len(text[at:]) - len(text[at:].lstrip())
        document, at = decoder.raw_decode(text, at)
        yield document


def _lines(document: dict[str, dict[str, list[dict[str, str]]]]) -> Iterator[str]:
    for analyzers in document.values():
        for analyzer, findings in analyzers.items():
            for finding in findings:
                yield f"{Path(finding['posn']).name}: {analyzer}: {' '.join(finding['message'].split())}"
