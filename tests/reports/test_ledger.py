"""The ledger: from records below ``runs/`` to a row per claim and a column per kernel line, and how both are shown."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from go_labs import spec
from go_labs.spec import Lab
from reports import html, ledger, ledger_views
from reports.ledger import Cell, Found, Ledger
from tests.reports import made
from tests.reports.test_html import Page
from vm import lock as locks
from vm.errors import DiskFullError, RecordError, UsageError

Edit = Callable[[dict[str, Any]], None]


def on(line: str, finished: str, **options: str) -> Edit:
    """Make a record one of kernel ``line`` that ended at ``finished``, with other ``options``."""

    def edit(data: dict[str, Any]) -> None:
        data["provenance"] |= {"kernel_line": line, "finished": finished}
        data["provenance"]["options"] |= options

    return edit


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    folder.mkdir()
    return folder


@pytest.fixture
def add(runs: Path, recorded: Path) -> Callable[..., Path]:
    """Put a copy of the recorded run below ``runs``, changed by each edit in turn."""

    def put(name: str, *edits: Edit) -> Path:
        data = json.loads((recorded / "run.json").read_bytes())
        data["id"] = name
        for edit in edits:
            edit(data)
        (runs / name).mkdir()
        (runs / name / "run.json").write_text(json.dumps(data))
        return runs / name

    return put


def mutex() -> Lab:
    return spec.find("mutex").lab


def ledger_of(runs: Path, *lines: str, labs: list[Lab] | None = None) -> Ledger:
    found = ledger.collect(runs)
    return ledger.make(labs or [mutex()], lines or ledger.choose_lines([], found, locks.read()), found)


def cell(made_of: Ledger, claim: str, line: str) -> Cell:
    found = next(row for row in made_of.claims if row.claim == claim).verdicts[line]
    assert found is not None
    return found


# --- from records to rows -----------------------------------------------------------------------------------------


def test_without_a_run_every_claim_is_there_and_not_run(runs: Path) -> None:
    found = ledger_of(runs)

    assert found.kernels == ["5.10", "6.1", "6.12", "6.18", "7.3"]
    assert [row.claim for row in found.claims] == [claim.id for claim in mutex().claims]
    assert {verdict for row in found.claims for verdict in row.verdicts.values()} == {None}
    assert (found.records, found.broken) == (0, [])


def test_a_folder_of_records_that_is_not_there_holds_none(tmp_path: Path) -> None:
    assert ledger.collect(tmp_path / "nowhere") == Found([], [])


def test_a_real_record_gives_its_verdicts_to_its_kernel_alone(runs: Path, recorded: Path) -> None:
    shutil.copytree(recorded, runs / recorded.name)
    data = json.loads((recorded / "run.json").read_bytes())

    found = ledger_of(runs)

    assert {row.claim: row.verdicts["6.1"].outcome for row in found.claims if row.verdicts["6.1"]} == {
        verdict["claim"]: verdict["outcome"] for verdict in data["verdicts"]
    }
    assert {row.verdicts["6.12"] for row in found.claims} == {None}
    one = cell(found, "2.4-d", "6.1")
    assert one.outcome == "refuted"
    assert one.record == recorded.name
    assert one.path == str(runs / recorded.name)
    assert one.go_version == "go1.27.3"
    assert one.clock == "emulated"


def test_the_run_that_ended_last_counts_whatever_its_name_and_its_offset(runs: Path, add: Callable[..., Path]) -> None:
    def turn(data: dict[str, Any]) -> None:
        data["verdicts"][3]["outcome"] = "undecided"

    add("a-late", on("6.1", "2026-11-23T13:00:00+01:00"), turn)  # noon, UTC
    add("b-later", on("6.1", "2026-11-23T12:30:00+00:00"))
    add("c-early", on("6.1", "2026-11-23T11:59:00+00:00"), turn)

    assert cell(ledger_of(runs), "2.4-d", "6.1").record == "b-later"
    assert cell(ledger_of(runs), "2.4-d", "6.1").outcome == "refuted"


def test_counted_instructions_do_not_renew_a_run_with_a_seconds_clock(runs: Path, add: Callable[..., Path]) -> None:
    def counted(data: dict[str, Any]) -> None:
        data["provenance"]["clock"] = "virtual"

    add("a", on("6.1", "2026-11-24T12:00:00+00:00"))
    add("b", on("6.1", "2026-11-25T12:00:00+00:00"), counted)
    add("c", on("7.3", "2026-11-25T12:00:00+00:00"), counted)
    found = ledger_of(runs, "6.1", "7.3")

    assert cell(found, "2.4-a", "6.1").record == "a"
    assert cell(found, "2.4-a", "7.3").record == "c"
    assert "counted instructions" in ledger_views.remarks(cell(found, "2.4-a", "7.3"))


def test_a_claim_that_the_latest_run_did_not_have_keeps_its_verdict(runs: Path, add: Callable[..., Path]) -> None:
    add("early", on("6.1", "2026-11-22T12:00:00+00:00"))
    add("late", on("6.1", "2026-11-23T12:00:00+00:00"), lambda data: data["verdicts"].pop(0))

    found = ledger_of(runs)

    assert cell(found, "2.4-a", "6.1").record == "early"
    assert cell(found, "2.4-b", "6.1").record == "late"
    behind = {run.cell.record: (run.claims, run.some) for run in ledger_views.runs_behind(found)}
    assert behind == {"early": (["2.4-a"], True), "late": ([f"2.4-{letter}" for letter in "bcdef"], True)}


def test_labs_that_judge_the_same_claim_have_a_row_each(runs: Path, add: Callable[..., Path]) -> None:
    other = msgspec.structs.replace(mutex(), name="other", claims=mutex().claims[:1])
    add("run", on("6.1", "2026-11-23T12:00:00+00:00"))

    found = ledger_of(runs, labs=[mutex(), other])

    assert [(row.claim, row.lab, row.verdicts["6.1"] is None) for row in found.claims if row.claim == "2.4-a"] == [
        ("2.4-a", "mutex", False),
        ("2.4-a", "other", True),
    ]


def test_records_of_other_labs_are_read_and_not_shown(runs: Path, add: Callable[..., Path]) -> None:
    add("own", on("6.1", "2026-11-23T12:00:00+00:00"), lambda data: data["lab"].update(name="mine"))

    found = ledger_of(runs)

    assert found.records == 1
    assert {row.verdicts["6.1"] for row in found.claims} == {None}


def test_other_options_than_the_defaults_are_said(runs: Path, add: Callable[..., Path]) -> None:
    defaults = {name: option.default for name, option in mutex().options.items()}
    full = {name: option.full for name, option in mutex().options.items() if option.full}
    add("plain", on("5.10", "2026-11-23T12:00:00+00:00", **defaults))
    add("some", on("6.1", "2026-11-23T12:00:00+00:00", **(defaults | {"readers": "0,50"})))
    add("full", on("6.12", "2026-11-23T12:00:00+00:00", **(defaults | full)))

    found = ledger_of(runs)

    assert cell(found, "2.4-a", "5.10").options == {}
    assert cell(found, "2.4-a", "6.1").options == {"readers": "0,50"}
    assert ledger_views.remarks(cell(found, "2.4-a", "5.10")) == []
    assert ledger_views.remarks(cell(found, "2.4-a", "6.1")) == ["options readers=0,50"]
    assert ledger_views.remarks(cell(found, "2.4-a", "6.12")) == ["full sweep"]


@pytest.mark.parametrize(
    "edit",
    [
        lambda verdict: verdict.update(text="something else"),
        lambda verdict: verdict["criteria"][0].update(confirm=">= 99"),
        lambda verdict: verdict["criteria"].pop(),
    ],
)
def test_a_verdict_on_another_wording_is_said_to_be_one(edit: Edit, runs: Path, add: Callable[..., Path]) -> None:
    current = [{"metric": c.metric, "confirm": c.confirm, "refute": c.refute} for c in mutex().claims[3].criteria]

    def as_now(data: dict[str, Any]) -> None:
        data["verdicts"][3]["text"] = mutex().claims[3].text
        for criterion, now in zip(data["verdicts"][3]["criteria"], current, strict=True):
            criterion.update(now)

    add("same", on("6.1", "2026-11-23T12:00:00+00:00"), as_now)
    add("other", on("6.12", "2026-11-23T12:00:00+00:00"), as_now, lambda data: edit(data["verdicts"][3]))

    found = ledger_of(runs)

    assert not cell(found, "2.4-d", "6.1").reworded
    assert cell(found, "2.4-d", "6.12").reworded
    assert "the claim was worded otherwise" in ledger_views.remarks(cell(found, "2.4-d", "6.12"))


# --- columns ------------------------------------------------------------------------------------------------------


def test_columns_are_default_lines_and_those_with_records_by_number_ones_own_last(
    runs: Path, add: Callable[..., Path]
) -> None:
    for line in ("mine", "7.0", "6.1"):
        add(f"on-{line}", on(line, "2026-11-23T12:00:00+00:00"))

    assert ledger_of(runs).kernels == ["5.10", "6.1", "6.12", "6.18", "7.0", "7.3", "mine"]


def test_columns_can_be_chosen_by_line_release_or_name_of_ones_own(runs: Path, add: Callable[..., Path]) -> None:
    add("own", on("mine", "2026-11-23T12:00:00+00:00"))
    found, lock = ledger.collect(runs), locks.read()
    release = lock.kernels["6.12"].release

    assert ledger.choose_lines(["mine", release, "5.10"], found, lock) == ["mine", "6.12", "5.10"]
    for wrong, said in ((["6.10"], "no kernel '6.10'"), (["6.12", release], "twice")):
        with pytest.raises(UsageError, match=said):
            ledger.choose_lines(wrong, found, lock)


def test_the_clock_of_each_run_behind_a_verdict_is_told(runs: Path, add: Callable[..., Path]) -> None:
    add("host", on("6.1", "2026-11-23T12:00:00+00:00"), lambda data: data["provenance"].update(clock="emulated"))
    add("counted", on("7.3", "2026-11-23T12:00:00+00:00"), lambda data: data["provenance"].update(clock="virtual"))
    told = io.StringIO()

    ledger_views.print_ledger(ledger_of(runs), told, 200)

    rows = {words[4]: words[3] for line in told.getvalue().splitlines() if len(words := line.split()) > 4}
    assert (rows["host"], rows["counted"]) == ("emulated", "virtual")


# --- what cannot be read ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "no run.json: No such file"),
        (b"", "is no run record"),
        (b"\xff\xfe", "is no run record"),
        (b"[]", "is no run record"),
        (b'{"schema": 1}', "is no run record: Object missing required field"),
    ],
)
def test_a_broken_record_is_left_out_counted_and_named(
    content: bytes | None, why: str, runs: Path, add: Callable[..., Path]
) -> None:
    add("whole", on("6.1", "2026-11-23T12:00:00+00:00"))
    (runs / "broken").mkdir()
    if content is not None:
        (runs / "broken" / "run.json").write_bytes(content)

    found = ledger_of(runs)

    assert cell(found, "2.4-a", "6.1").record == "whole"
    assert [(each.name, why in each.why) for each in found.broken] == [("broken", True)]
    said = ledger_views.broken_words(found)
    assert said[0] == "left out 1 broken record:"
    assert said[1].startswith("  broken: ")


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (lambda data: data.update(schema=99), "schema 99"),
        (lambda data: data["provenance"].update(finished="yesterday"), "ended at no time: 'yesterday'"),
        (lambda data: data["provenance"].update(finished="2026-11-23T12:00:00"), "without an offset"),
        (lambda data: data["verdicts"][0].update(outcome="proved"), "is no run record"),
    ],
)
def test_a_record_that_says_what_it_cannot_is_broken(
    edit: Edit, why: str, runs: Path, add: Callable[..., Path]
) -> None:
    add("strange", edit)

    assert [why in each.why for each in ledger_of(runs).broken] == [True]


def test_runs_under_way_and_files_are_no_records(runs: Path) -> None:
    (runs / ".staging-1-abcd").mkdir()
    (runs / "claims.html").write_text("<!doctype html>")

    assert ledger_of(runs).broken == []


def test_names_of_broken_records_cannot_steer_a_terminal(runs: Path) -> None:
    (runs / "\x1b[2Jx").mkdir()

    assert "\x1b" not in "".join(ledger_views.broken_words(ledger_of(runs)))


# --- shown --------------------------------------------------------------------------------------------------------


def printed(found: Ledger, width: int) -> str:
    stream = io.StringIO()
    ledger_views.print_ledger(found, stream, width)
    return stream.getvalue()


@pytest.fixture
def several(runs: Path, add: Callable[..., Path]) -> Ledger:
    for line in ("5.10", "6.1", "6.12", "6.18", "7.0", "mine"):
        path = add(f"20261123T120000Z-mutex-{line}-0123abcd", on(line, "2026-11-23T12:00:00+00:00"))
        if line != "6.12":
            (path / "report.html").write_text("<!doctype html>")
    return ledger_of(runs)


def test_a_terminal_of_80_columns_shows_all_kernels_and_whole_ids(several: Ledger) -> None:
    text = printed(several, 80)

    assert max(len(line) for line in text.splitlines()) <= 80
    lines = text.splitlines()
    assert lines[1].split() == ["5.10", "6.1", "6.12", "6.18", "7.0"]
    assert lines[2].split() == ["7.3", "mine"]
    row = next(number for number, line in enumerate(lines) if line.startswith("2.4-d"))
    assert lines[row].split() == ["2.4-d", *(["refuted*"] * 5)]
    assert lines[row + 1].split() == ["not", "run", "refuted*"]
    assert "Futex system calls" in lines[row + 2]
    for line in ("5.10", "mine"):
        run = f"20261123T120000Z-mutex-{line}-0123abcd"
        assert re.search(rf"^mutex +{line} +go1.27.3 +emulated +{run}", text, re.MULTILINE)


def test_what_is_said_of_a_machine_is_plain_text(several: Ledger) -> None:
    text = printed(several, 200)

    assert "\x1b" not in text
    assert "not testable: not testable here" in text


def test_without_a_run_the_terminal_says_how_one_is_made(runs: Path) -> None:
    assert printed(ledger_of(runs), 80).splitlines()[-1].startswith("no run of these labs is there; `invoke lab NAME")


def test_the_document_is_for_machines(several: Ledger) -> None:
    document = json.loads(msgspec.json.encode(ledger.document(several)))

    assert document["schema"] == 1
    assert document["records"] == 6
    row = next(row for row in document["claims"] if row["claim"] == "2.4-d")
    assert row["lab"] == "mutex"
    assert row["verdicts"]["7.3"] is None
    assert row["verdicts"]["6.1"]["outcome"] == "refuted"
    assert row["verdicts"]["6.1"]["record"] == "20261123T120000Z-mutex-6.1-0123abcd"


@pytest.fixture
def content(several: Ledger, runs: Path) -> str:
    return ledger_views.page(several, runs)


def test_the_page_holds_together_fetches_nothing_and_runs_nothing(content: str) -> None:
    page = Page(content)

    assert page.open == []
    assert "://" not in content
    assert page.all("script") == []
    assert {tag for tag, _ in page.elements} & {"img", "iframe", "object", "embed", "form", "base"} == set()
    policy = [meta["content"] for meta in page.all("meta") if "http-equiv" in meta]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for a in page.all("a") if a["href"].startswith("#")} <= set(ids)
    assert len(content) < 200_000


def test_each_verdict_has_a_word_a_sign_and_a_border_of_its_own(content: str) -> None:
    badges = re.findall(r'<span class="badge (\w+)"><svg [^>]*>(.*?)</svg>([^<]+)</span>', content)

    words = {name: word for name, _, word in badges}
    assert words == {
        "confirmed": "confirmed", "refuted": "refuted", "undecided": "undecided", "not_testable": "not testable here",
    }  # fmt: skip
    assert len({sign for _, sign, _ in badges}) == 4
    assert "not run" in Page(content).text


def test_each_cell_links_to_its_runs_report_and_one_without_is_no_link(content: str, runs: Path) -> None:
    links = [a["href"] for a in Page(content).all("a") if a["href"].endswith("report.html")]

    assert len(links) == 5 * 6
    assert all((runs / link).is_file() for link in links)
    assert not any("6.12" in link for link in links)


def test_links_lead_from_wherever_the_page_is_written(several: Ledger, runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "elsewhere" / "page.html"
    out.parent.mkdir()

    assert ledger_views.write_page(several, runs, out) == out

    links = [a["href"] for a in Page(out.read_text()).all("a") if a["href"].endswith("report.html")]
    assert links
    assert all((out.parent / link).is_file() for link in links)


def test_on_a_small_screen_each_cell_names_its_kernel(content: str) -> None:
    titles = [td.get("data-title") for td in Page(content).all("td")]

    assert titles == ["5.10", "6.1", "6.12", "6.18", "7.0", "7.3", "mine"] * 6


def test_the_page_says_what_was_not_the_default_and_which_go(content: str) -> None:
    text = Page(content).text

    assert "options rep=0.04, pairs=10" in text
    assert "go1.27.3" in text
    assert "emulated" in text


def test_untrusted_words_are_escaped(runs: Path, add: Callable[..., Path]) -> None:
    evil = "<script>alert(1)</script>\u202e"
    add("evil", on(evil, "2026-11-23T12:00:00+00:00", x=evil), lambda d: d["provenance"].update(go_version=evil))
    (runs / "<b>").mkdir()
    found = ledger_of(runs)

    content = ledger_views.page(found, runs)

    assert "<script" not in content
    assert "<b></code>" not in content
    assert "\u202e" not in content
    assert "\u202e" not in printed(found, 80)
    assert Page(content).open == []


def test_the_page_is_written_beside_the_records(several: Ledger, runs: Path) -> None:
    written = ledger_views.write_page(several, runs)

    assert written == runs / "claims.html"
    assert ledger_views.write_page(several, runs) == written
    assert sorted(path.name for path in runs.iterdir() if path.is_file()) == ["claims.html"]


def test_a_page_that_cannot_be_written_is_told(
    several: Ledger, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RecordError, match="cannot be written") as caught:
        ledger_views.write_page(several, runs, tmp_path / "nowhere" / "page.html")
    assert "--out" in caught.value.hint

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(DiskFullError):
        html.write(runs / "claims.html", "")


def test_the_lab_that_is_chosen_may_be_ones_own(tmp_path: Path) -> None:
    lab = Path(shutil.copytree(made.LAB, tmp_path / "queue"))

    assert [found.name for found in ledger.choose_labs(["mutex", str(lab)])] == ["mutex", "queue"]
    assert [found.name for found in ledger.choose_labs([])] == spec.names()
    with pytest.raises(UsageError, match="no lab 'mutx'"):
        ledger.choose_labs(["mutx"])
