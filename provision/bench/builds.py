"""How long images take from an empty cache: one of its own beside the real one, removed afterwards."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from provision.bench.figures import Figure
from provision.house import House
from vm import progress
from vm.images import Builder
from vm.model import Kernel

ROOTS_LIMIT = 180.0
BUNDLE_LIMIT = 15.0


def measure(house: House, kernels: Sequence[Kernel], say: Callable[[str], None]) -> list[Figure]:
    """Build tools root and base image, then the bundle of each of ``kernels``; downloads are part of it.

    Once: a mirror that was just asked answers the second time from its own memory.
    """
    house.layout.cache.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="bench-", dir=house.layout.cache))
    try:
        builder = Builder(house.lock, replace(house.layout, cache=scratch), progress.to_stderr())
        roots = _seconds(lambda: builder.build([]))
        say(f"tools root and base image: {roots:.1f} s")
        bundles = []
        for kernel in kernels:
            bundles.append(_seconds(lambda kernel=kernel: builder.build([kernel])))  # type: ignore[misc]
            say(f"bundle {kernel.release}: {bundles[-1]:.1f} s")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    meaning = "tools root and base image from an empty cache, downloads among it"
    return [
        Figure(name="images", meaning=meaning, unit="s", samples=[roots], limit=ROOTS_LIMIT),
        Figure(name="bundle", meaning="each further kernel bundle", unit="s", samples=bundles, limit=BUNDLE_LIMIT),
    ]


def _seconds(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began
