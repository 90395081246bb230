"""Plans, ended attempts and records of matrices that never ran, for the tests of what runs them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from go_labs import spec
from go_labs.evidence import EVIDENCE_SCHEMA, Evidence, PhaseEvidence, Place, Provenance
from go_labs.matrix import MATRIX_SCHEMA, Cell, Ended, MatrixPlan, Outcome, PlannedLab
from go_labs.spec import LabFolder
from provision.matrix import planning
from vm.model import Kernel

LINES = ("5.10", "6.1")
HASH = "5e" * 32
AT = "2026-11-26T12:00:00+00:00"


def kernel(line: str, support: str = "default") -> Kernel:
    return Kernel(
        line=line, release=f"{line}.0-56-cloud-amd64", version=f"{line}.192-2", suite="x", support=support, packages=[]
    )


def folders(names: Sequence[str] = ("mutex",)) -> list[LabFolder]:
    return [spec.find(name) for name in names]


def plan(
    *, labs: Sequence[str] = ("mutex",), lines: Sequence[str] = LINES, repeats: int = 2, judged: int = 0,
    seed: int = 7, **changes: Any,
) -> MatrixPlan:  # fmt: skip
    """A plan of real labs on made-up kernels; the first is the baseline."""
    dice = random.Random(seed)  # noqa: S311
    kernels = [kernel(line) for line in lines]
    cells = planning.make_cells(kernels, kernels[0], dice)
    made = MatrixPlan(
        schema=MATRIX_SCHEMA, id="20261126T120000Z-abcd", created=AT, product_version="0.1.0", seed=seed,
        labs=[
            PlannedLab(name=f.lab.name, title=f.lab.title, primary=f.lab.primary, options={}) for f in folders(labs)
        ],
        cells=cells, baseline=base(cells), repeats=repeats, judged=judged or repeats, delta=0.03, alpha=0.05,
        clock="host", accel="tcg", go_version="1.27.3", build="plain", share=False, allowed=[], lock_digest=HASH,
        runs=planning.order(folders(labs), cells, [], repeats, judged or repeats, dice),
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def base(cells: Sequence[Cell]) -> str:
    control = next(cell for cell in cells if cell.control)
    return next(cell.id for cell in cells if not cell.control and cell.kernel_release == control.kernel_release)


def ended(run: int, outcome: Outcome = "passed", attempt: int = 1, **more: Any) -> Ended:
    return Ended(at=AT, run=run, attempt=attempt, outcome=outcome, **{"seconds": 10.0, **more})


def provenance(place: Place | None, **changes: Any) -> Provenance:
    made = Provenance(
        started=AT, finished=AT, kernel_line="6.1", kernel_release="6.1.0-56-cloud-amd64", kernel_version="6.1.150-1",
        cmdline="quiet", lock_digest=HASH, base_sha256=HASH, bundle_sha256=HASH, tools_sha256=HASH, provider="qemu",
        qemu_version="10.0.3", accelerator="tcg", cpu_model="max", machine_type="q35", cpus=2, memory_mib=1024,
        clock="emulated", clocksource="tsc", start="warm", go_version="1.27.3", lab_sha256=HASH, binary_sha256=HASH,
        loader_sha256=HASH, objects_sha256=HASH, options={}, host={}, seed=7, order=0, product_version="0.1.0",
        place=place,
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def phase(name: str = "timed", **changes: Any) -> PhaseEvidence:
    made = PhaseEvidence(name=name, exit_status=0, wall_seconds=5.0, workload_seconds=4.0, files={})
    return msgspec.structs.replace(made, **changes)


def leave_evidence(
    folder: Path, place: Place | None, phases: Sequence[PhaseEvidence] = (), facts: dict[str, Any] | None = None,
    lab: str = "mutex", **changes: Any,
) -> Path:  # fmt: skip
    """Write ``evidence.json`` as ``provision.labrun`` does."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Evidence(
        schema=EVIDENCE_SCHEMA, lab=lab, provenance=provenance(place, **changes), phases=list(phases or [phase()]),
        files={}, timings={"machine_seconds": 9.0}, facts=facts or {},
    )  # fmt: skip
    (folder / "evidence.json").write_bytes(msgspec.json.encode(made))
    return folder
