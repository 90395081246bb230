"""What surrounded a run: whether its machine got the host's CPUs, whether the guest was robbed of time. Pure.

Under emulation a guest sees no steal time, and knows nothing of what its threads wait for: that is read on the host.
"""

from __future__ import annotations

from collections.abc import Iterable

from go_labs.spec import TIMED
from reports.analysis import RunData
from reports.schema import Metric

_STEAL = 8
"""Place of steal among the words of the first line of /proc/stat, after ``cpu`` (proc_stat(5))."""


def metrics(run: RunData) -> Iterable[Metric]:
    """Give ``host.wait_share`` and ``guest.stolen_share``."""
    phase = run.phases.get(TIMED) or next(iter(run.phases.values()), None)
    waited = None if phase is None else phase.host_wait_share
    yield Metric(
        name="host.wait_share",
        title="Share of time that the machine waited for a CPU of the host",
        unit="",
        kind="share",
        value=waited,
        absent="" if waited is not None else "the machine's process was not looked at",
        phase="" if phase is None else phase.name,
        meaning="by the host's clock: time that its CPUs were ready and had none, over that and the time that they ran",
    )
    stolen = _stolen(run)
    yield Metric(
        name="guest.stolen_share",
        title="Share of time that was stolen from the guest",
        unit="",
        kind="share",
        value=stolen,
        absent="" if stolen is not None else "the guest's /proc/stat was not read twice",
        timing=True,
        meaning="steal over all of the guest's CPU time, first phase to last; emulated machines report none",
    )


def _stolen(run: RunData) -> float | None:
    guest = run.facts.get("guest")
    if not isinstance(guest, dict):
        return None
    before, after = (_ticks(str(guest.get(name, ""))) for name in ("stat_before", "stat_after"))
    if before is None or after is None or len(before) != len(after):
        return None
    passed = [late - early for early, late in zip(before, after, strict=True)]
    # guest and guest_nice, the last two, are part of user and nice.
    whole = sum(passed[:_STEAL])
    return passed[_STEAL - 1] / whole if whole > 0 else None


def _ticks(line: str) -> list[int] | None:
    words = line.split()
    if len(words) < _STEAL + 1 or words[0] != "cpu" or not all(word.isdecimal() for word in words[1:]):
        return None
    return [int(word) for word in words[1:]]
