"""Recordings of runtime/trace that a phase left → ``go-trace.json``, made on the host while they are at hand."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from bpf import gotrace
from go_labs.evidence import PhaseEvidence
from vm import process
from vm.errors import BuildError, OutputError

SUMMARY = "go-trace.json"
"""Name of the summary in the phase's folder."""

ROLE = "go_trace"

KEPT_BYTES = 8 * 2**20
"""Bytes of a recording that stays in the record; of a larger one only the summary does."""

SECONDS = 120
"""Seconds that summarising one phase's recordings may take; those of a full run (32 MiB) take about ten."""

_RECORDING = re.compile(r"go-[0-9]{1,6}(-part)?\.trace")
"""What ``go_labs/labkit/trace.go`` calls its files."""


def summarised(evidence: PhaseEvidence, staging: Path, tool: Path) -> PhaseEvidence:
    """Add the summary of the recordings of a phase, and drop recordings that are too large to keep.

    What cannot be read is told in the summary, recording by recording: that is for ``reports`` to judge.

    :param tool: the program ``gotrace`` (``bpf.build.gotrace``).
    :raises DiskFullError: no space is left for the summary.
    """
    names = sorted(name for name in evidence.files if _RECORDING.fullmatch(name))
    if not names:
        return evidence
    paths = [staging / evidence.files[name] for name in names]
    target = f"{evidence.name}/{SUMMARY}"
    (staging / target).write_bytes(_summary(paths, tool))
    files = {role: name for role, name in evidence.files.items() if role != SUMMARY} | {ROLE: target}
    dropped = [name for name, path in zip(names, paths, strict=True) if path.stat().st_size > KEPT_BYTES]
    for name in dropped:
        (staging / files.pop(name)).unlink()
    return msgspec.structs.replace(evidence, files=files, go_traces_dropped=len(dropped))


def _summary(paths: list[Path], tool: Path) -> bytes:
    try:
        made = process.run(["timeout", str(SECONDS), tool, *paths], environment={"GOMEMLIMIT": "1GiB"})
        gotrace.decode(made)
    except (BuildError, OutputError) as error:
        words = error.message.replace("timeout failed with status 124", f"that took more than {SECONDS} s")
        why = f"it could not be summarised: {words.replace('timeout ', 'gotrace ', 1)}"[:400]
        failed = [
            gotrace.Recording(
                name=path.name, bytes=path.stat().st_size, format="", events=0, whole=False, clock="", segments=[],
                error=why,
            )
            for path in paths
        ]  # fmt: skip
        return msgspec.json.encode(gotrace.GoTrace(schema=gotrace.SCHEMA, traces=failed, segments={}))
    return made
