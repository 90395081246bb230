"""Where everything lies: one object knows every path.

Caches live outside the repository, below ``$XDG_CACHE_HOME/kmlab`` (``~/.cache/kmlab``), and are keyed by content.
Machines live below ``$XDG_STATE_HOME/kmlab`` (``~/.local/state/kmlab``). Run records live in ``runs/`` of the current
checkout, matrices in ``matrices/`` beside it. ``KMLAB_CACHE``, ``KMLAB_STATE`` and ``KMLAB_RUNS`` override each.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
"""Root of the checkout that this code was imported from."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths of caches, machines and records.

    :param cache: what can be made again from the lock: downloads, artefacts, warm states, Go builds.
    :param state: machines that run, and what they left.
    :param runs: run records.
    """

    cache: Path
    state: Path
    runs: Path

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Layout:
        """Read the layout from ``environ`` (default: this process's own)."""
        env = os.environ if environ is None else environ
        home = Path(env.get("HOME") or Path.home())
        cache = Path(env.get("XDG_CACHE_HOME") or home / ".cache") / "kmlab"
        state = Path(env.get("XDG_STATE_HOME") or home / ".local" / "state") / "kmlab"
        return cls(
            cache=Path(env.get("KMLAB_CACHE") or cache).absolute(),
            state=Path(env.get("KMLAB_STATE") or state).absolute(),
            runs=Path(env.get("KMLAB_RUNS") or REPOSITORY / "runs").absolute(),
        )

    @property
    def matrices(self) -> Path:
        """Matrices, a folder each, beside the folder of single runs."""
        return self.runs.parent / "matrices"

    @property
    def downloads(self) -> Path:
        """Fetched files by SHA-256; ``.part`` beside them is a download under way."""
        return self.cache / "downloads"

    @property
    def artefacts(self) -> Path:
        """Tools root, base image and kernel bundles, a folder each, named by kind and input hash."""
        return self.cache / "artefacts"

    @property
    def boxes(self) -> Path:
        """Catalogues of boxes for Vagrant, one per kernel line; the Vagrantfile looks here."""
        return self.cache / "boxes"

    @property
    def warm(self) -> Path:
        """Saved machine states, a folder each, named by the hash of all that shapes them."""
        return self.cache / "warm"

    @property
    def builds(self) -> Path:
        """Go workloads, the loader and BPF objects, by the hash of their inputs."""
        return self.cache / "builds"

    @property
    def toolchains(self) -> Path:
        """Go toolchains by version."""
        return self.cache / "toolchains"

    @property
    def machines(self) -> Path:
        """One folder per running machine: sockets, console log, disks, registration."""
        return self.state / "machines"

    @property
    def logs(self) -> Path:
        """Logs of defects: what would have been a traceback."""
        return self.state / "logs"
