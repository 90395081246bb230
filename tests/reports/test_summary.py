from __future__ import annotations

import io
import json
from pathlib import Path

import msgspec
import pytest

from reports import summary
from reports.schema import Record


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def spoiled(found: Record) -> Record:
    verdict = msgspec.structs.replace(found.verdicts[0], sentence="all \x1b[31mred\x1b[0m [bold]now[/bold]")
    return msgspec.structs.replace(found, verdicts=[verdict])


def test_the_json_has_each_verdict_with_its_figures(found: Record) -> None:
    document = json.loads(summary.verdicts_json(found))
    assert document["lab"] == "queue"
    assert document["clock"] == "emulated"
    assert [verdict["verdict"] for verdict in document["verdicts"]] == [
        "confirmed", "refuted", "not_testable", "undecided",
    ]  # fmt: skip
    cost = document["verdicts"][2]["criteria"][0]
    assert cost["measured_in"] == "emulated"
    assert cost["interval"][0] < cost["value"] < cost["interval"][1]
    parks = document["verdicts"][0]["criteria"][0]
    assert (parks["value"], parks["measured_in"], parks["interval"]) == (84, None, None)
    assert document["losses"] == 0
    assert document["gates"] == [
        {"name": "nothing lost", "passed": True, "metric": "losses.total", "value": 0.0},
        {"name": "exact counts", "passed": True, "metric": "forced.mismatches", "value": 0.0},
    ]


def test_the_json_is_plain_ascii(found: Record) -> None:
    text = summary.verdicts_json(spoiled(found))
    assert text.isascii()
    assert "\x1b" not in text


def test_a_pipe_gets_plain_lines(found: Record) -> None:
    out = io.StringIO()
    summary.print_verdicts(found, Path("runs/x/report.html"), out)
    lines = out.getvalue().splitlines()
    assert lines[0] == "9.1-a: CONFIRMED. A waiting goroutine parks."
    assert lines[2] == "9.1-b: REFUTED. Each wait is a futex system call."
    assert lines[4].startswith("9.1-c: NOT TESTABLE HERE.")
    assert lines[-1] == "report: runs/x/report.html"
    assert "times and rates of this run are emulated" in lines


def test_a_terminal_gets_a_table_in_colours(found: Record) -> None:
    out = Terminal()
    summary.print_verdicts(found, None, out)
    assert "\x1b[1;32mconfirmed" in out.getvalue()
    assert "A waiting goroutine parks." in out.getvalue()


def test_no_color_makes_a_terminal_plain(found: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    out = Terminal()
    summary.print_verdicts(found, None, out)
    assert "\x1b" not in out.getvalue()
    assert "CONFIRMED" in out.getvalue()


@pytest.mark.parametrize("out", [io.StringIO(), Terminal()])
def test_a_sentence_cannot_colour_or_move_anything(found: Record, out: io.StringIO) -> None:
    summary.print_verdicts(spoiled(found), None, out)
    assert "\x1b[31m" not in out.getvalue()
    assert "\\x1b[31mred" in out.getvalue()
    assert "[bold]now" in out.getvalue().replace("\n", " ")


def test_a_failed_gate_phase_or_loss_is_said(found: Record) -> None:
    gate = msgspec.structs.replace(found.gates[0], passed=False)
    phase = msgspec.structs.replace(found.phases[0], error="the machine was lost")
    loss = msgspec.structs.replace(found.losses[0], count=7)
    out = io.StringIO()
    summary.print_verdicts(msgspec.structs.replace(found, gates=[gate], phases=[phase], losses=[loss]), None, out)
    assert "phase timed has no whole result: the machine was lost" in out.getvalue()
    assert "gate failed: nothing lost" in out.getvalue()
    assert "lost while tracing: 7 records" in out.getvalue()
