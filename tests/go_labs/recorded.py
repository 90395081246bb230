"""Recorded runs of labs as staging folders.

Renew that of a lab, of a run with short options, with
``PYTHONPATH=. .venv/bin/python -m tests.go_labs.recorded RECORD NAME``.
The mutex lab's is older and has its own form:

Phases timed, traced and profiled were recorded from the workload and the loader on an ordinary machine (Go 1.27.3, two
CPUs, short options); the kernel phase and its tools in an emulated machine with 6.1. A test may put other words in the
tools' mouths.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from go_labs import spec
from go_labs.evidence import EVIDENCE_SCHEMA, Evidence, PhaseEvidence
from reports import analysis, metrics, staging, verdicts
from reports.analysis import Analysis, RunData
from reports.schema import Metric, Verdict
from tests.reports.made import provenance

RUN = Path(__file__).parent / "fixtures" / "run"
FILES = {
    "timed": {"workload": "workload.json"},
    "traced": {
        "workload": "workload.json", "trace": "trace.json", "events": "events.bin", "plan": "plan.json",
        "symbols": "symbols.json",
    },
    "profiled": {"workload": "workload.json"},
    "kernel": {"workload": "workload.json"},
}  # fmt: skip


def locks() -> list[int]:
    """Addresses of the locks of the kernel phase."""
    output = json.loads((RUN / "kernel" / "workload.json").read_text())
    return [address for segment in output["segments"] for address in segment["addresses"].values()]


def recorded_tools() -> dict[str, Any]:
    """What the tools printed in the recorded kernel phase."""
    return {
        path.stem.removeprefix("tool-").replace("-", "/", 1): json.loads(path.read_text())
        for path in (RUN / "kernel").glob("tool-*.json")
    }


def tool(hits: int = 0, total: int = 50, addresses: Mapping[int, int] | None = None, **more: Any) -> dict[str, Any]:
    """What a kernel-side tool prints."""
    return {"hits": hits, "total": total, "addresses": {hex(at): n for at, n in (addresses or {}).items()}, **more}


def read(folder: Path, tools: Mapping[str, Any] | None = None, **changes: Any) -> RunData:
    """Lay the recorded run out in ``folder`` with ``tools`` in its kernel phase, and read it."""
    shutil.copytree(RUN, folder, dirs_exist_ok=True)
    phases = []
    for name, roles in FILES.items():
        files = {role: f"{name}/{file}" for role, file in roles.items() if (folder / name / file).exists()}
        if name == "kernel":
            for label, document in (tools or {}).items():
                file = f"kernel/tool-{label.replace('/', '-')}.json"
                (folder / file).write_text(json.dumps(document))
                files[f"tool:{label}"] = file
        phases.append(PhaseEvidence(name=name, exit_status=0, wall_seconds=5, workload_seconds=4, files=files))
    evidence = Evidence(
        schema=EVIDENCE_SCHEMA, lab="mutex", provenance=provenance(**changes), phases=phases, files={}, timings={}
    )  # fmt: skip
    (folder / staging.EVIDENCE).write_bytes(msgspec.json.encode(evidence))
    return staging.read(folder, spec.find("mutex").lab)[1]


def read_record(name: str, folder: Path, **changes: Any) -> RunData:
    """Read the recorded run of lab ``name``, laid out in ``folder``; ``changes`` go to its provenance.

    ``fixtures/NAME`` holds what a run in a machine left, as :func:`keep` took it from the record.
    """
    shutil.copytree(RUN.parent / name, folder, dirs_exist_ok=True)
    path = folder / staging.EVIDENCE
    evidence = staging.read_evidence(path)
    evidence = msgspec.structs.replace(evidence, provenance=msgspec.structs.replace(evidence.provenance, **changes))
    path.write_bytes(msgspec.json.encode(evidence))
    return staging.read(folder, spec.find(name).lab)[1]


def keep(record: Path, name: str) -> None:
    """Make ``fixtures/NAME`` of a run's record: its evidence and what that names, logs and Go's own traces left out."""
    target = RUN.parent / name
    shutil.rmtree(target, ignore_errors=True)
    evidence = staging.read_evidence(record / staging.EVIDENCE)
    logs = ("console", "kernel_log", "stderr", "loader.err", "tools.err")
    files = {role: file for role, file in evidence.files.items() if role not in logs}
    phases = [
        msgspec.structs.replace(
            phase, files={r: f for r, f in phase.files.items() if r not in logs and not r.endswith(".trace")}
        )
        for phase in evidence.phases
    ]
    for file in {*files.values(), *(file for phase in phases for file in phase.files.values())}:
        (target / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(record / file, target / file)
    kept = msgspec.structs.replace(evidence, files=files, phases=phases)
    (target / staging.EVIDENCE).write_bytes(msgspec.json.format(msgspec.json.encode(kept), indent=1))


def analyse(run: RunData) -> Analysis:
    path = spec.find(run.lab.name).analysis
    assert path is not None
    return analysis.load(path)(run)


def figures(run: RunData) -> dict[str, Metric]:
    """All metrics of ``run`` by name, the generic ones too."""
    return {metric.name: metric for metric in [*metrics.generic(run), *analyse(run).metrics]}


def judge(run: RunData) -> dict[str, Verdict]:
    """Verdicts on ``run`` by claim."""
    found = list(figures(run).values())
    gates = verdicts.gates(run.lab, found)
    return {v.claim: v for v in verdicts.judge(run.lab, found, gates, metrics.losses(run), run.clock)}


if __name__ == "__main__":
    keep(Path(sys.argv[1]), sys.argv[2])
