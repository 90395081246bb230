"""``invoke trace``: programs that nobody here wrote, on real machines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from provision import gobuild, toolchains
from provision.gobuild import Variant
from reports import record as records
from reports.schema import Record
from tests.test_main_job import environment, invoke
from vm.paths import REPOSITORY, Layout

__all__ = ["environment"]  # A fixture: real images, and machines and records of this module's own.

pytestmark = [pytest.mark.vm, pytest.mark.build]

CROWD = REPOSITORY / "tests" / "provision" / "fixtures" / "crowd"


def crowd(version: str, variant: Variant) -> Path:
    layout = Layout.from_environment()
    return gobuild.build(CROWD, toolchains.go_for(toolchains.resolve(version), layout), layout, variant)


def trace(binary: Path, *words: str, environment: dict[str, str]) -> tuple[int, list[dict[str, object]], str]:
    done = invoke("trace", str(binary), "--json", "--timeout", "30", *words, environment=environment)
    return done.returncode, json.loads(done.stdout)["runs"], done.stderr


def record(run: dict[str, object]) -> Record:
    return records.read(Path(str(run["path"])))


@pytest.mark.parametrize(
    ("version", "variant"), [("1.27", Variant()), ("1.21", Variant(pie=True, stripped=True))], ids=["static", "pie"]
)
def test_its_waits_are_counted_and_its_output_is_kept(
    version: str, variant: Variant, environment: dict[str, str]
) -> None:
    code, (run,), _ = trace(
        crowd(version, variant), "--kernel", "6.1", "--probes", "mutex", "--", "12", "0", "a b", environment=environment
    )
    found = record(run)
    timed, traced = found.phases

    assert code == 0
    assert (found.verdicts, found.gates, found.equality) == ([], [], [])
    assert (timed.error, traced.error) == ("", "")
    assert traced.counters["0"]["park_mutex"] == 12
    assert traced.counters["0"]["slow"] == 12
    assert found.provenance.build == variant.name
    for phase in ("timed", "traced"):
        assert (Path(str(run["path"])) / phase / "stdout").read_text() == '["12" "0" "a b"]\n'
        assert (Path(str(run["path"])) / phase / "stderr").read_text() == "that was all\n"
    titles = [chart.title for chart in found.charts]
    assert {"What was counted", "Waits over time", "Where they waited: sync.Mutex.Lock"} <= set(titles)
    assert "main.wait.func1" in Path(str(run["report"])).read_text()


def test_a_program_that_fails_still_gives_a_record_with_every_set_that_fits(environment: dict[str, str]) -> None:
    code, runs, said = trace(crowd("1.27", Variant()), "--kernel", "5.10,7.3", "--", "3", "7", environment=environment)

    assert code == 30
    assert "probe set context is left out" in said
    assert "program crowd, phase timed: the program ended with status 7: that was all" in said
    assert [str(run["kernel_release"])[:2] for run in runs] == ["5.", "7."]
    for run in runs:
        traced = record(run).phases[1]
        assert traced.exit_status == 7
        assert traced.counters["0"]["park:sync.Mutex.Lock"] == 3
        assert traced.counters["0"]["created"] >= 3


def test_it_runs_on_a_persons_machine(environment: dict[str, str]) -> None:
    up = invoke("vm.up", "--kernel", "6.1", "--name", "mine", environment=environment)
    assert up.returncode == 0, up.stderr
    try:
        code, (run,), _ = trace(
            crowd("1.27", Variant()), "--machine", "mine", "--probes", "mutex", "--", "2", "0", environment=environment
        )
        left = invoke("ssh", "--name", "mine", "--command", "ls /lab", environment=environment)
    finally:
        invoke("vm.down", "--name", "mine", environment=environment)
    assert code == 0
    assert record(run).phases[1].counters["0"]["park_mutex"] == 2
    assert left.stdout == "kit\n"
