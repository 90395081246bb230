"""What came of attempts, recorded on 5.10, 6.1 and 7.3 (``fixtures/attempts``), as metrics, verdicts and a table."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from go_labs import spec
from go_labs.evidence import Attempts
from reports import attempts, record, verdicts
from reports.analysis import RunData
from reports.schema import Metric, Verdict
from reports.staging import _attempts as read
from tests.reports import made

FIXTURES = Path(__file__).parent / "fixtures" / "attempts"
TRIED = spec.load(Path(__file__).parents[1] / "provision" / "fixtures" / "tried").lab
KERNELS = ("5.10", "6.1", "7.3")

Edit = Callable[[list[dict[str, Any]]], None]


def unchanged(results: list[dict[str, Any]]) -> None:
    assert results


def run(folder: Path, kernel: str = "6.1", edit: Edit = unchanged) -> RunData:
    """The recorded results of ``kernel``, changed by ``edit``, as they are read from a staging folder."""
    document = json.loads((FIXTURES / f"{kernel}.json").read_text())
    edit(document["attempts"])
    (folder / "attempts.json").write_text(json.dumps(document))
    found, error = read(folder, "attempts.json")
    return RunData(lab=TRIED, provenance=made.provenance(), phases={}, attempts=found, attempts_error=error)


def metric(found: RunData, name: str) -> Metric:
    return next(each for each in attempts.metrics(found) if each.name == f"attempt.{name}")


def judged(found: RunData) -> dict[str, Verdict]:
    metrics = attempts.metrics(found)
    results = verdicts.gates(TRIED, metrics)
    return {v.claim: v for v in verdicts.judge(TRIED, metrics, results, [], found.clock)}


def change(name: str, **values: Any) -> Edit:
    def edit(results: list[dict[str, Any]]) -> None:
        next(result for result in results if result["id"] == name).update(values)

    return edit


@pytest.mark.parametrize("kernel", KERNELS)
def test_each_kernel_refuses_what_is_not_there_and_takes_what_is(tmp_path: Path, kernel: str) -> None:
    values = {each.name.removeprefix("attempt."): each.value for each in attempts.metrics(run(tmp_path, kernel))}

    assert {name for name, value in values.items() if value == 1} == {
        "kprobe_openat2", "sched_switch", "prev_state", "kallsyms_schedule", "chansend1", "uprobe_closechan",
        "bpftool_show",
    }  # fmt: skip
    assert {name for name, value in values.items() if value == 0} == {
        "kprobe_chansend", "sched_go_start", "next_state", "kallsyms_closechan", "chanpark", "acquirem",
        "uprobe_chanpark", "bpftool_uprobe",
    }  # fmt: skip


@pytest.mark.parametrize(("kernel", "number"), [("5.10", "No such file or directory"), ("7.3", "Invalid argument")])
def test_a_verdict_has_the_kernels_own_words(tmp_path: Path, kernel: str, number: str) -> None:
    found = judged(run(tmp_path, kernel))

    assert {claim: verdict.outcome for claim, verdict in found.items()} == {
        "2.2-b": "refuted", "2.3-d": "refuted", "2.5-b": "confirmed", "4.4-b": "refuted"
    }  # fmt: skip
    assert f"{number}; trace_kprobe: error: Invalid probed address or symbol" in found["2.2-b"].sentence
    assert "its fields are prev_comm, prev_pid, prev_prio, prev_state" in found["2.3-d"].sentence
    assert "Error: invalid attach/detach type" in found["4.4-b"].sentence


def test_what_was_not_tried_is_no_refusal(tmp_path: Path) -> None:
    found = run(tmp_path, edit=change("kprobe_chansend", untried="/sys/kernel/tracing/kprobe_events is not there"))

    assert metric(found, "kprobe_chansend").value is None
    assert metric(found, "kprobe_chansend").absent.endswith("kprobe_events is not there")


@pytest.mark.parametrize("change_of_control", [{"done": False, "words": "no"}, {"untried": "no memory"}])
def test_a_refusal_without_its_control_shows_nothing(tmp_path: Path, change_of_control: dict[str, Any]) -> None:
    found = run(tmp_path, edit=change("prev_state", **change_of_control))

    assert metric(found, "next_state").value is None
    assert (
        "the control field:sched:sched_switch:prev_state did not succeed either" in metric(found, "next_state").absent
    )
    assert judged(found)["2.3-d"].outcome == "not_testable"
    assert metric(found, "kprobe_chansend").value == 0, "another kind has its own control"


def test_what_succeeded_stands_without_its_control(tmp_path: Path) -> None:
    def edit(results: list[dict[str, Any]]) -> None:
        change("kprobe_openat2", done=False)(results)
        change("kprobe_chansend", done=True)(results)

    assert metric(run(tmp_path, edit=edit), "kprobe_chansend").value == 1


def test_a_result_under_another_name_is_not_taken(tmp_path: Path) -> None:
    found = run(tmp_path, edit=change("next_state", what="field:sched:sched_wakeup:next_state"))

    assert metric(found, "next_state").absent == "this run tried field:sched:sched_wakeup:next_state under that name"


@pytest.mark.parametrize("content", ["", "[]", '{"schema": 2, "attempts": []}', '{"schema": 1, "attempts": [{}]}'])
def test_a_broken_file_leaves_every_attempt_absent_with_the_reason(tmp_path: Path, content: str) -> None:
    (tmp_path / "attempts.json").write_text(content)
    found, error = read(tmp_path, "attempts.json")
    data = RunData(lab=TRIED, provenance=made.provenance(), phases={}, attempts=found, attempts_error=error)

    assert {each.value for each in attempts.metrics(data)} == {None}
    assert metric(data, "chanpark").absent.startswith("attempts.json holds no results of attempts: ")


def test_a_machines_words_are_bounded_and_made_safe(tmp_path: Path) -> None:
    found = run(
        tmp_path, edit=change("chanpark", words="\x1b[31m" + "x" * 5000, facts={"a\x07": "\x1b", "b": ["\x1b"] * 999})
    )

    result = found.attempts["chanpark"]
    assert "\x1b" not in msgspec.json.encode(result).decode()
    assert result.words.startswith("\\x1b[31mxxx")
    assert len(result.words) < 450
    assert result.facts["a\\x07"] == "\\x1b"
    assert len(str(result.facts["b"])) < 1000


def test_the_table_tells_what_was_tried_in_the_order_of_the_lab(tmp_path: Path) -> None:
    table = attempts.table(run(tmp_path, edit=change("uprobe_closechan", untried="no memory")))

    assert table is not None
    rows = {str(row[0]): row[1:] for row in table.rows}
    assert list(rows) == [attempt.what for attempt in TRIED.attempts]
    assert rows["kallsyms:runtime.closechan"][1:] == ["refused", "not among 88243 symbols", "symbols 88243"]
    assert rows["kprobe:do_sys_openat2"][1:3] == ["possible (control)", "yes"]
    assert rows["uprobe:runtime.closechan"][1:] == ["not tried (control)", "it could not be tried: no memory", ""]


def test_a_lab_that_tries_nothing_has_no_table() -> None:
    data = RunData(lab=made.folder().lab, provenance=made.provenance(), phases={})

    assert (attempts.metrics(data), attempts.table(data)) == ([], None)


def test_a_record_holds_the_results_and_its_page_shows_them(tmp_path: Path) -> None:
    from reports import html

    staging = made.staging(tmp_path / "staging")
    evidence = json.loads((staging / "evidence.json").read_text())
    evidence["files"]["attempts"] = "attempts.json"
    made.write(staging / "evidence.json", json.dumps(evidence).encode())
    results = msgspec.json.decode((FIXTURES / "6.1.json").read_bytes(), type=Attempts)
    hostile = msgspec.structs.replace(results.attempts[0], words="<script>alert(1)</script>")
    made.write(staging / "attempts.json", msgspec.json.encode(Attempts(schema=1, attempts=[hostile])))
    folder = made.folder()
    lab = msgspec.structs.replace(folder.lab, attempts=TRIED.attempts[:1])

    path = record.seal(staging, msgspec.structs.replace(folder, lab=lab), tmp_path / "runs")

    found = record.read(path).metric("attempt.kprobe_chansend")
    assert found is not None
    assert (found.value, found.words) == (0, "<script>alert(1)</script>")
    page = html.render(path).read_text()
    assert "What was tried" in page
    assert "kprobe:runtime.chansend" in page
    assert "<script>alert(1)" not in page
