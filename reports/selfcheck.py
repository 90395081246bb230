"""What the forced sections of a run came to, for ``invoke selftest``: only whether counts are exact."""

from __future__ import annotations

from pathlib import Path

from go_labs.evidence import Difference, ForcedCheck
from go_labs.spec import Lab
from reports import metrics, staging


def check(folder: Path, lab: Lab) -> ForcedCheck:
    """Hold what a run of ``lab`` left in the staging folder ``folder`` against what its workload expected.

    :raises RecordError: the evidence is missing or broken.
    """
    _, run = staging.read(folder, lab)
    rows = metrics.equality(run)
    found = {metric.name: metric.value for metric in metrics.generic(run)}
    return ForcedCheck(
        checked=sum(row.traced is not None for row in rows),
        differences=[
            Difference(
                segment=row.segment,
                parameters=row.parameters,
                counter=row.counter,
                expected=row.expected,
                traced=row.traced,
            )
            for row in rows
            if not row.equal
        ],
        goids=int(found.get("selftest.goids") or 0),
        goids_wrong=int(found.get("selftest.mismatches") or 0),
        lost=int(found.get("losses.counts") or 0),
        errors=[f"phase {phase.name}: {phase.error}" for phase in run.phases.values() if phase.error]
        + ([run.error] if run.error and not run.phases else []),
    )
