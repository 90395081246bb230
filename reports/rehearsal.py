"""What of a lab can be found wrong before a machine is started: its criteria, and its ``analysis.py``.

The analysis is tried on a run of which nothing came back. A phase can fail, so it must be able to say of each of its
metrics that it is absent, and why; thereby the names of all metrics are known beforehand.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from go_labs.evidence import Provenance
from go_labs.spec import Lab, LabFolder
from reports import analysis, record, verdicts
from reports.analysis import RunData
from vm.errors import ConfigError
from vm.version import VERSION


def check(folder: LabFolder) -> None:
    """Check that the lab in ``folder`` can be judged once it was run.

    :raises ConfigError: a criterion or gate cannot be read, or names a metric that nothing gives; ``analysis.py``
        cannot be imported, or fails.
    """
    verdicts.check(folder.lab)
    if folder.analysis is not None:
        analysis.load(folder.analysis)
    try:
        given = record.analyse(empty_run(folder.lab), folder)
    except ConfigError as error:
        hint = "it is tried without a run first: a phase can fail, and then each metric must say why it is absent"
        raise ConfigError(error.message, hint) from error
    known = [metric.name for metric in given.metrics]
    for what, name in _named(folder.lab):
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3)
            hint = (
                f"did you mean {', '.join(near)}?" if near else "analysis.py gives it, or reports/metrics.py lists it"
            )
            raise ConfigError(f"{folder.path / 'lab.toml'}: {what} names {name!r}, which is no metric", hint)


def _named(lab: Lab) -> Iterator[tuple[str, str]]:
    """Give each metric that ``lab.toml`` names, and where."""
    yield "primary", lab.primary
    yield from ((f"claim {claim.id}", criterion.metric) for claim in lab.claims for criterion in claim.criteria)
    yield from ((f"gate {gate.name!r}", gate.metric) for gate in lab.gates)


def empty_run(lab: Lab) -> RunData:
    """Return a run of ``lab`` of which nothing came back."""
    nothing = "not run"
    provenance = Provenance(
        started="", finished="", kernel_line=nothing, kernel_release=nothing, kernel_version="", cmdline="",
        lock_digest="", base_sha256="", bundle_sha256="", tools_sha256="", provider=nothing, qemu_version="",
        accelerator="", cpu_model="", machine_type="", cpus=lab.cpus, memory_mib=lab.memory, clock="emulated",
        clocksource="", start="cold", go_version=nothing, lab_sha256="", binary_sha256="", loader_sha256="",
        objects_sha256="", options={name: option.default for name, option in lab.options.items()}, host={}, seed=0,
        order=0, product_version=VERSION,
    )  # fmt: skip
    return RunData(lab=lab, provenance=provenance, phases={})
