from __future__ import annotations

import errno
import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest

from go_labs import spec
from reports import record, schema
from reports.charts import Timeline
from reports.schema import Record
from tests.reports import made
from vm.errors import ConfigError, DiskFullError, RecordError


def test_a_sealed_record_is_named_for_time_lab_and_kernel_and_the_staging_folder_is_gone(tmp_path: Path) -> None:
    staging = made.staging(tmp_path / "staging", started="2026-11-23T14:00:00+02:00")
    path = record.seal(staging, made.folder(), tmp_path / "runs")
    assert path.parent == tmp_path / "runs"
    assert path.name.startswith("20261123T120000Z-queue-6.1-")
    assert not staging.exists()
    assert [p.name for p in (tmp_path / "runs").iterdir()] == [path.name]


def test_every_file_is_an_artefact_with_its_hash_and_the_lab_is_kept(sealed: Path, found: Record) -> None:
    listed = {artefact.path: artefact for artefact in found.artefacts}
    files = {p.relative_to(sealed).as_posix() for p in sealed.rglob("*") if p.is_file()} - {"run.json", "report.html"}
    assert set(listed) == files
    assert {"lab/lab.toml", "lab/analysis.py", "console.log", "traced/events.bin"} <= files
    data = (sealed / "traced/events.bin").read_bytes()
    assert listed["traced/events.bin"].sha256 == hashlib.sha256(data).hexdigest()
    assert listed["traced/events.bin"].size == len(data)
    assert (sealed / "lab/analysis.py").read_bytes() == (made.LAB / "analysis.py").read_bytes()


def test_the_verdicts_of_the_made_up_run_are_of_all_four_kinds(found: Record) -> None:
    assert {verdict.claim: verdict.outcome for verdict in found.verdicts} == {
        "9.1-a": "confirmed",
        "9.1-b": "refuted",
        "9.1-c": "not_testable",
        "9.1-d": "undecided",
    }


def test_figures_carry_the_clock_and_the_forced_counts_are_equal(found: Record) -> None:
    assert {metric.clock for metric in found.metrics} == {"emulated"}
    assert len(found.equality) == 9
    assert all(row.equal for row in found.equality)
    assert [row.traced for row in found.equality if row.counter == "park_mutex"] == [4, 16, 64]
    goids = found.metric("selftest.goids")
    assert goids is not None
    assert goids.value == 3


def test_probe_cost_is_hits_times_calibration_over_the_time_of_all_cpus(found: Record) -> None:
    share = found.metric("probe.cost_share")
    assert share is not None
    assert share.value == pytest.approx((11_436 + 355 + 9) * 3300 / (3.1e9 * 2))


def test_a_record_that_is_there_is_never_overwritten(tmp_path: Path) -> None:
    first = record.seal(made.staging(tmp_path / "one"), made.folder(), tmp_path / "runs")
    before = (first / "run.json").read_bytes()
    again = made.staging(tmp_path / "two")
    with pytest.raises(RecordError, match="is there already"):
        record.seal(again, made.folder(), tmp_path / "runs")
    assert (first / "run.json").read_bytes() == before
    assert (again / "traced/events.bin").is_file()


@pytest.mark.parametrize("name", ["traced/events.bin", "console.log", "lab/lab.toml", "evidence.json"])
def test_a_changed_artefact_is_found(sealed: Path, tmp_path: Path, name: str) -> None:
    copy = Path(shutil.copytree(sealed, tmp_path / "copy"))
    data = bytearray((copy / name).read_bytes())
    data[-1] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(RecordError, match=f"{name} is not the file that was sealed"):
        record.read(copy)
    assert record.read(copy, verify=False).id == sealed.name


def test_a_missing_artefact_is_found(sealed: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(sealed, tmp_path / "copy"))
    (copy / "kernel.log").unlink()
    with pytest.raises(RecordError, match=r"kernel\.log is missing"):
        record.read(copy)


def test_a_folder_without_a_record_is_told_from_none_at_all(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="there is no run record"):
        record.read(tmp_path / "nothing")
    with pytest.raises(RecordError, match=r"has no run\.json"):
        record.read(tmp_path)


def test_a_full_disk_keeps_what_the_run_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    staging = made.staging(tmp_path / "staging")

    def full(path: Path, _data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(record, "_write", full)
    with pytest.raises(DiskFullError, match="no space left"):
        record.seal(staging, made.folder(), tmp_path / "runs")
    assert (staging / "traced/events.bin").is_file()
    assert not (tmp_path / "runs").exists()


def test_another_file_system_is_crossed_by_copy_then_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    staging = made.staging(tmp_path / "staging")
    rename = Path.rename

    def across(self: Path, target: Path) -> Path:
        if self == staging:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", across)
    path = record.seal(staging, made.folder(), tmp_path / "runs")
    assert record.read(path).id == path.name
    assert not staging.exists()
    assert [p.name for p in (tmp_path / "runs").iterdir()] == [path.name]


def test_a_link_in_the_staging_folder_is_refused(tmp_path: Path) -> None:
    staging = made.staging(tmp_path / "staging")
    (staging / "secret").symlink_to("/etc/passwd")
    with pytest.raises(RecordError, match="neither a file nor a folder"):
        record.seal(staging, made.folder(), tmp_path / "runs")


def test_a_failed_phase_is_kept_in_the_record_and_its_claims_are_not_testable(tmp_path: Path) -> None:
    staging = made.staging(tmp_path / "staging")

    def fail(evidence: dict[str, list[dict[str, object]]]) -> None:
        evidence["phases"][1] |= {"error": "the kernel refused a BPF program", "exit_status": 3, "files": {}}

    made.change(staging / "evidence.json", fail)
    found = record.read(record.seal(staging, made.folder(), tmp_path / "runs"))
    outcomes = {verdict.claim: verdict for verdict in found.verdicts}
    assert outcomes["9.1-a"].outcome == "not_testable"
    assert "the kernel refused a BPF program" in outcomes["9.1-a"].sentence
    failed = found.metric("phases.failed")
    assert failed is not None
    assert failed.value == 1
    assert found.losses == []
    assert all(row.traced is None for row in found.equality)


def test_a_machine_that_was_lost_between_phases_is_told_and_what_it_did_before_is_kept(tmp_path: Path) -> None:
    staging = made.staging(tmp_path / "staging")

    def lose(evidence: dict[str, Any]) -> None:
        evidence["phases"] = evidence["phases"][:1]
        evidence["facts"] = {"error": {"class": "HangError", "message": "the guest \x1b[2J did not answer"}}

    made.change(staging / "evidence.json", lose)
    found = record.read(record.seal(staging, made.folder(), tmp_path / "runs"))
    assert [(phase.name, phase.error) for phase in found.phases] == [
        ("timed", ""),
        ("traced", "phase traced did not run: the guest \\x1b[2J did not answer"),
        ("kernel", "phase kernel did not run: the guest \\x1b[2J did not answer"),
    ]
    assert "did not answer" in found.verdicts[0].sentence
    assert found.notes[0] == "The run ended early: the guest \\x1b[2J did not answer"
    cost = found.metric("cost.ns_per_op")
    assert cost is not None
    assert cost.value is not None


def test_a_lab_without_an_analysis_gets_the_generic_figures_and_charts(tmp_path: Path) -> None:
    lab = tmp_path / "lab"
    lab.mkdir()
    text = (made.LAB / "lab.toml").read_text()
    (lab / "lab.toml").write_text(text)
    path = record.seal(made.staging(tmp_path / "staging"), spec.load(lab), tmp_path / "runs")
    found = record.read(path)
    assert [chart.id for chart in found.charts] == ["traced-waits", "traced-distribution", "traced-stacks"]
    assert {verdict.outcome for verdict in found.verdicts} == {"not_testable"}
    assert not (path / "lab/analysis.py").exists()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def analyse(run):\n    return 1 / 0\n", "ZeroDivisionError"),
        ("def analyse(run):\n    return {}\n", "gave dict, not Analysis"),
        ("nothing = 1\n", "has no function analyse"),
        ("import nowhere_at_all\n", "ModuleNotFoundError"),
        (
            "from reports.analysis import Analysis\nfrom reports.schema import Metric\n"
            "def analyse(run):\n    return Analysis(metrics=[Metric(name='losses.total', title='', unit='',"
            " kind='count', value=0.0)])\n",
            "metrics that every lab has: losses.total",
        ),
    ],
)
def test_a_broken_analysis_is_a_fault_of_the_lab_and_loses_nothing(tmp_path: Path, code: str, message: str) -> None:
    lab = Path(shutil.copytree(made.LAB, tmp_path / "lab"))
    (lab / "analysis.py").write_text(code)
    staging = made.staging(tmp_path / "staging")
    with pytest.raises(ConfigError, match=message):
        record.seal(staging, spec.load(lab), tmp_path / "runs")
    assert (staging / "traced/trace.json").is_file()


def test_evidence_of_another_lab_is_refused(tmp_path: Path) -> None:
    staging = made.staging(tmp_path / "staging")
    made.change(staging / "evidence.json", lambda evidence: evidence.update(lab="mutex"))
    with pytest.raises(RecordError, match="is of lab 'mutex'"):
        record.seal(staging, made.folder(), tmp_path / "runs")


def test_run_json_alone_says_what_the_page_needs(sealed: Path, found: Record) -> None:
    assert schema.decode((sealed / "run.json").read_bytes()) == found
    assert len((sealed / "run.json").read_bytes()) < 400_000


def test_a_full_timeline_is_a_file_of_the_record_and_the_chart_leads_to_it(sealed: Path, found: Record) -> None:
    listed = {artefact.path: artefact for artefact in found.artefacts}
    artefact = listed["timeline.perfetto-trace"]
    assert artefact.role == "timeline for a trace viewer"
    assert artefact.size == (sealed / "timeline.perfetto-trace").stat().st_size > 10_000
    assert [chart.trace for chart in found.charts if isinstance(chart, Timeline)] == [artefact.path]


@pytest.mark.parametrize("name", ["../run", "run.json", "", "timeline"])
def test_a_timeline_with_a_name_that_is_no_plain_word_or_is_taken_is_refused(tmp_path: Path, name: str) -> None:
    lab = Path(shutil.copytree(made.LAB, tmp_path / "lab"))
    text = (lab / "analysis.py").read_text()
    again = f"timelines=[full, timeline.FullTimeline({name!r}, full.runs)]"
    (lab / "analysis.py").write_text(text.replace("timelines=[full] if full else []", again))
    with pytest.raises(ConfigError, match="names a timeline"):
        record.seal(made.staging(tmp_path / "staging"), spec.load(lab), tmp_path / "runs")


def test_what_a_timelines_file_had_to_cut_is_told_on_the_page(tmp_path: Path) -> None:
    lab = Path(shutil.copytree(made.LAB, tmp_path / "lab"))
    text = (lab / "analysis.py").read_text()
    (lab / "analysis.py").write_text(text.replace("start + gap * 2 // 3", "start + gap * 2 // 3 + 10**6"))
    found = record.read(record.seal(made.staging(tmp_path / "staging"), spec.load(lab), tmp_path / "runs"))
    assert found.notes[-1].startswith("timeline.perfetto-trace: ")
    assert found.notes[-1].endswith("slices overlapped the next one on their track and were cut there.")
