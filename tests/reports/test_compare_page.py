"""``compare.html`` as a document, and the same comparison on a terminal."""

from __future__ import annotations

import io
import json
import re
from html import unescape
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import msgspec
import pytest

from reports import compare, compare_page, compare_plots, compare_views, compare_words, html, synthetic, text
from reports.charts import Ecdf, EcdfSeries
from reports.comparison import Comparison, Effect
from reports.schema import Interval
from reports.synthetic import Shape
from tests.reports import compared, made
from tests.reports.matrices import A, B, lab, primary, records, small
from tests.reports.test_html import Page, luminance


@pytest.fixture(scope="module")
def content(comparison: Comparison, made_up: Path) -> str:
    return compare_page.page(comparison, made_up, made_up)


@pytest.fixture(scope="module")
def page(content: str) -> Page:
    return Page(content)


def cell(content: str, name: str, line: str) -> str:
    """The overview's cell of a lab on a kernel, as it stands in the page."""
    row = next(row for row in re.findall(r"<tr>.*?</tr>", overview(content), re.DOTALL) if f">{name}</a>" in row)
    cells: list[str] = re.findall(r"<td.*?</td>", row, re.DOTALL)
    return next(td for td in cells if f'data-title="{line}"' in td)


def overview(content: str) -> str:
    return content[content.index('<h2 id="overview">') : content.index('<h2 id="resolve">')]


# ---- the document ----


def test_every_element_is_closed_and_ids_are_unique(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]

    assert page.open == []
    assert len(ids) == len(set(ids))


def test_every_link_leads_to_a_place_in_the_page_or_to_a_file_of_the_matrix(page: Page, made_up: Path) -> None:
    ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    links = [attributes["href"] for attributes in page.all("a")]

    assert len(links) > 200
    for link in links:
        if link.startswith("#"):
            assert link[1:] in ids
        else:
            assert (made_up / unquote(link)).is_file()
    for _, attributes in page.elements:
        for name in ("aria-labelledby",):
            assert attributes.get(name, "overview") in ids


def test_nothing_is_fetched_and_nothing_runs(content: str, page: Page) -> None:
    assert page.all("script") == []
    assert not re.search(r"\son\w+=|javascript:|@import|url\(|https?://", content)
    assert "default-src 'none'" in content
    assert [a["href"] for a in page.all("link")] == ["data:,"]


def test_the_overview_comes_first_and_the_sections_have_their_order(page: Page) -> None:
    order = [attributes["id"] for attributes in page.all("h2")]

    assert order[:3] == ["overview", "resolve", "claims"]
    assert order[3:-3] == [f"lab-{number}" for number in range(1, 5)]
    assert order[-3:] == ["excluded", "provenance", "reading"]


def test_headings_descend_one_by_one(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]

    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_every_table_has_a_caption_and_scopes_and_every_drawing_words(content: str, page: Page) -> None:
    assert content.count("<table") == content.count("<caption")
    assert all("scope" in attributes for attributes in page.all("th"))
    for attributes in page.all("svg"):
        assert attributes.get("aria-hidden") == "true" or attributes.get("aria-label")


def test_the_keyboard_follows_the_page(content: str, page: Page) -> None:
    """Links are real, none is taken out of the order, the first leads past the head, and focus is seen."""
    assert page.all("a")[0] == {"class": "skip", "href": "#overview"}
    assert {a["tabindex"] for _, a in page.elements if "tabindex" in a} == {"0"}
    assert all(attributes.get("href") for attributes in page.all("a"))
    assert ".heat:focus-visible" in content
    assert "outline: none" not in content
    scrolled = [a for _, a in page.elements if a.get("class") == "scroll"]
    assert all(a["role"] == "region" and a["aria-label"] for a in scrolled)


# ---- what it says ----


def test_each_cell_tells_verdict_effect_and_interval_and_leads_to_its_row(content: str, comparison: Comparison) -> None:
    effect = next(e for e in primary(comparison).effects if e.kernel == "6.12")
    slower = cell(content, A, "6.12")

    assert 'href="#lab-1-k-3"' in slower
    assert ">slower</span>" in slower
    assert text.relative(effect.ratio or 0) in slower
    assert text.relative_interval(effect.interval) in slower
    assert "<svg" in slower  # a sign beside the word, not colour alone
    assert 'id="lab-1-k-3"' in content
    assert ">baseline</span>" in cell(content, A, "5.10")


def test_an_arrow_follows_the_value_and_not_the_praise() -> None:
    assert compare_page.sign(Effect(kernel="7.3", change="faster", ratio=1.08)) == "up"  # a rate
    assert compare_page.sign(Effect(kernel="7.3", change="faster", ratio=0.9)) == "down"  # a time
    assert compare_page.sign(Effect(kernel="7.3", change="undecided", ratio=0.9)) == "undecided"


@pytest.mark.parametrize(("ratio", "strength"), [(1.04, 1), (1 / 1.04, 1), (1.1, 2), (1.3, 3)])
def test_colour_grows_with_the_effect_either_way(ratio: float, strength: int) -> None:
    assert compare_page.strength(Effect(kernel="7.3", change="slower", ratio=ratio), 0.03) == strength
    assert compare_page.strength(Effect(kernel="7.3", change="undecided", ratio=ratio), 0.03) == 0


def test_undecided_is_never_called_same(tmp_path: Path) -> None:
    folder = small(tmp_path / "m", noise=0.3, blocks=3)
    content = compare_page.page(compare.compare(folder), folder, folder)

    undecided = cell(content, A, "6.12")
    assert ">undecided</span>" in undecided
    assert "heat undecided" in undecided
    assert "Undecided is no sign of sameness" in content
    assert "No difference can be established here, however large." in content
    # Where the page speaks of what is the same, it speaks of something else than of kernels.
    said = re.findall(r"[^.]*\bsame\b[^.]*\.", Page(content).text)
    assert said
    assert not [words for words in said if "undecided" in words.lower()]


def test_the_clock_is_named_in_the_head_and_beside_every_time(content: str, comparison: Comparison) -> None:
    head = content[content.index("<header>") : content.index("</header>")]

    assert "Clock: the host’s, emulated machine." in head
    assert "no performance data of real hardware" in head
    time, count = 'class="tag">emulated</span>', "memory.objects"
    assert primary(comparison, lab(comparison, "synthetic-c").lab).metric == count
    figures = re.findall(r"<tr id=\"lab-1-.*?</tr>", content, re.DOTALL)
    assert len(figures) == 6
    assert all(time in row for row in figures)
    assert all(time not in row for row in re.findall(r"<tr id=\"lab-3-.*?</tr>", content, re.DOTALL))


def test_no_cell_paragraph_or_item_has_a_time_without_its_mark(content: str) -> None:
    blocks = re.findall(r"<(td|th|p|li)\b[^>]*>((?:(?!<(?:td|th|p|li)\b).)*?)</\1>", content, re.DOTALL)
    timed = [block for _, block in blocks if re.search(r"\d\u00a0(?:ns|µs|ms|s|/s)\b", block)]

    assert len(timed) > 100
    assert [block for block in timed if ">emulated<" not in block] == []


def test_instructions_are_no_time(tmp_path: Path) -> None:
    folder = small(tmp_path / "m", clock="virtual")
    content = compare_page.page(compare.compare(folder), folder, folder)

    assert "The machines’ clock counted instructions" in content
    assert 'class="tag">counted instructions</span>' in content
    assert 'class="tag">emulated</span>' not in content


def test_what_the_run_could_resolve_and_the_control_are_told(page: Page, comparison: Comparison) -> None:
    assert comparison.control is not None
    assert comparison.control.words in page.text
    assert "8 paired blocks are needed" in page.text
    assert "5.10 again" in page.text
    assert "Not finished." in page.text


def test_the_headline_does_not_speak_for_a_lab_that_could_not_show_anything() -> None:
    primary = compared.primary()
    few = [msgspec.structs.replace(each, detectable=None) for each in primary.effects]
    blind = compared.lab("gmp", primary=msgspec.structs.replace(primary, effects=few))

    _, could = compare_words.summary(compared.comparison(compared.lab(), blind))
    assert (
        "1.3% would have been found four times out of five, but none, however large, on some kernel of 1 lab;" in could
    )
    _, both = compare_words.summary(compared.comparison(compared.lab()))
    assert "but none" not in both


def test_excluded_runs_have_their_reason_and_their_log(content: str, comparison: Comparison) -> None:
    section = content[content.index('<h2 id="excluded">') : content.index('<h2 id="provenance">')]

    assert section.count("<tr>") == 1 + len(comparison.excluded)
    for each in comparison.excluded:
        assert each.words in unescape(section)
        if each.log:
            assert f'href="{each.log}"' in section
    assert "tried again, passed" in section


def test_claims_lead_to_the_run_behind_each_verdict(content: str, comparison: Comparison) -> None:
    section = content[content.index('<h2 id="claims">') : content.index('<h2 id="lab-1">')]
    row = next(row for row in lab(comparison).claims if row.claim == "a-2")

    for evidence in (each for cells in row.verdicts.values() for each in cells):
        assert f'href="{evidence.record}/run.json"' in section
    assert "First kernel with another verdict than 5.10: <b>6.12</b>" in section
    assert 'class="badge refuted"' in section


def test_mixed_verdicts_are_counted_apart(tmp_path: Path) -> None:
    folder = small(tmp_path / "m", judged=3)
    made.change(records(folder, "6.12")[1], lambda data: data["verdicts"][0].update(outcome="undecided"))
    content = compare_page.page(compare.compare(folder), folder, folder)

    section = content[content.index('<h2 id="claims">') : content.index('<h2 id="lab-1">')]
    mixed = next(td for td in re.findall(r"<td.*?</td>", section, re.DOTALL) if "undecided" in td)
    assert "2×" in mixed
    assert "badge confirmed" in mixed


def test_a_lab_that_cannot_run_says_why_in_its_cell(tmp_path: Path) -> None:
    folder = small(tmp_path / "m", labs=2, unfit={(A, "6.12"): "needs io_uring", (B, "6.1"): "too old"})
    content = compare_page.page(compare.compare(folder), folder, folder)

    assert "needs io_uring" in cell(content, A, "6.12")
    assert "cannot run" in cell(content, A, "6.12")
    assert "no 6.1 to compare with: too old" in cell(content, B, "6.12")


def test_a_set_of_records_says_that_nothing_was_chosen_beforehand(made_up: Path, content: str) -> None:
    found = compare.compare_records([made_up / "runs"], base=made_up)

    assert compare_words.AFTERWARDS in Page(compare_page.page(found, made_up, made_up)).text
    assert compare_words.AFTERWARDS not in content


def test_a_matrix_of_which_nothing_has_run_has_a_page(tmp_path: Path) -> None:
    folder = small(tmp_path / "m")
    (folder / "journal.jsonl").unlink()

    page = Page(compare_page.page(compare.compare(folder), folder, folder))

    assert page.open == []
    assert "nothing is compared" in page.text


HOSTILE = "<script>alert(1)</script>\x1b[31m\u202e\"'&"


def test_markup_and_control_characters_out_of_a_machine_stay_text(tmp_path: Path) -> None:
    folder = small(tmp_path / "m", ratios={(A, "6.12"): 1.5})

    def edit(data: dict[str, Any]) -> None:
        for metric in data["metrics"]:
            metric.update(title=HOSTILE, meaning=HOSTILE, unit=metric["unit"] and HOSTILE)
        data["lab"].update(title=HOSTILE)
        data["provenance"].update(go_version=HOSTILE, host={"cpu": HOSTILE})
        for verdict in data["verdicts"]:
            verdict.update(text=HOSTILE, sentence=HOSTILE, claim=f"{HOSTILE}{verdict['claim']}")

    for file in records(folder):
        made.change(file, edit)
    journal = folder / "journal.jsonl"
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    lines[-1].update(outcome="lab_failed", words=HOSTILE, gates=[HOSTILE], log=HOSTILE, record=HOSTILE)
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))

    found = compare.compare(folder)
    content = compare_page.page(found, folder, folder)
    terminal = io.StringIO()
    compare_views.print_comparison(found, terminal, 100)

    assert "<script" not in content
    assert Page(content).open == []
    for shown in (content, terminal.getvalue()):
        assert "\x1b" not in shown
        assert "\u202e" not in shown
    assert "&lt;script&gt;" in content


def test_a_hostile_path_in_a_document_is_no_address(comparison: Comparison, made_up: Path) -> None:
    excluded = [
        msgspec.structs.replace(e, log="javascript:alert(1)", record="../../../etc") for e in comparison.excluded
    ]
    content = compare_page.page(msgspec.structs.replace(comparison, excluded=excluded), made_up, made_up)

    assert not re.search(r'href="\s*javascript', content)


def test_five_kernels_eight_labs_and_ten_repeats_stay_below_2_mb(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    ratios = {(synthetic.lab_name(number), line): 1.05 for number in range(8) for line in ("6.12", "7.3")}
    synthetic.write(folder, Shape(labs=8, blocks=10, judged=10, ratios=ratios, troubles=20, extra=45, points=0))

    page = compare_page.write_page(compare.compare(folder), folder)

    assert page == folder / "compare.html"
    assert 100_000 < page.stat().st_size < 2_000_000


def test_links_are_relative_to_where_the_page_lies(comparison: Comparison, made_up: Path, tmp_path: Path) -> None:
    page = compare_page.write_page(comparison, made_up, tmp_path / "else.html")

    links = [a["href"] for a in Page(page.read_text()).all("a") if not a["href"].startswith("#")]
    assert links
    assert all((tmp_path / unquote(link)).is_file() for link in links)


@pytest.mark.parametrize("theme", [0, 1])
def test_words_on_coloured_cells_have_the_contrast_that_wcag_asks_for(theme: int) -> None:
    sheet = (html.TEMPLATES / "style.css").read_text()
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", re.findall(r":root \{(.*?)\}", sheet, re.DOTALL)[theme]))
    own = (html.TEMPLATES / "compare.css").read_text()
    shares = [int(share) / 100 for share in re.findall(r"var\(--tint\) (\d+)%", own)]

    assert len(shares) == 3
    for tint in ("no", "ok", "c0"):
        for share in shares:
            back = mixed(colours[tint], colours["card"], share)
            for front in (colours[tint], colours["ink"]):
                bright, dim = sorted((luminance(front), luminance(back)), reverse=True)
                assert (bright + 0.05) / (dim + 0.05) >= 4.5, f"{tint} at {share}"


def mixed(one: str, other: str, share: float) -> str:
    """Return ``color-mix(in srgb, one share, other)``."""
    pairs = [(int(one[i : i + 2], 16), int(other[i : i + 2], 16)) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(a * share + b * (1 - share)):02x}" for a, b in pairs)


# ---- geometry ----


def interval(low: float, high: float) -> Interval:
    return Interval(low=low, high=high, level=0.95, method="made up")


def test_a_forest_is_symmetric_in_the_logarithm_and_has_the_control_last() -> None:
    effects = [
        Effect(kernel="5.10", control=True, change="equivalent", ratio=1.0, interval=interval(0.99, 1.01), n=10),
        Effect(kernel="6.1", change="slower", ratio=1.25, interval=interval(1.2, 1.3), n=10),
        Effect(kernel="6.12", change="faster", ratio=0.8, interval=interval(1 / 1.3, 1 / 1.2), n=10),
        Effect(kernel="7.3", change="undecided", absent="no values", n=0),
    ]

    plot = compare_plots.forest(effects, 0.03)

    assert [row.effect.kernel for row in plot.rows] == ["6.1", "6.12", "7.3", "5.10"]
    assert plot.zero == pytest.approx(500, abs=0.2)
    assert (plot.rows[0].at or 0) + (plot.rows[1].at or 0) == pytest.approx(1000, abs=0.3)
    assert plot.rows[2].at is None
    assert plot.band[0] < plot.zero < plot.band[1]
    assert "0%" in [tick.label for tick in plot.ticks]
    assert len(plot.ticks) <= compare_plots.MOST_TICKS


def test_an_interval_that_dwarfs_its_estimates_goes_on_beyond_the_axis() -> None:
    effects = [Effect(kernel="6.1", change="undecided", ratio=1.01, interval=interval(0.001, 5.0), n=2)]

    row = compare_plots.forest(effects, 0.03).rows[0]

    assert (row.below, row.above) == (True, True)
    assert (row.low, row.high) == (0.0, 1000.0)


def ecdf(*names: str) -> Ecdf:
    series = [EcdfSeries(name=name, n=2, x=[178.0, 192.0], p=[0.5, 1.0]) for name in names]
    return Ecdf(id="primary", title="t", caption="c", phase="timed", x_title="t", x_unit="ns", series=series)


def test_values_close_to_each_other_are_drawn_on_a_linear_axis() -> None:
    plot = compare_plots.distribution(ecdf("6.1"))

    assert not plot.x.log
    assert 170 < plot.x.low < 178
    assert compare_plots.distribution(
        Ecdf(
            id="a", title="t", caption="c", phase="timed", x_title="t",
            series=[EcdfSeries(name="6.1", n=2, x=[1.0, 100.0], p=[0.5, 1.0])],
        )
    ).x.log  # fmt: skip


def test_more_kernels_than_an_eye_tells_apart_are_drawn_in_parts_each_with_the_baseline() -> None:
    parts = compare_plots.parts(ecdf(*(f"6.{number}" for number in range(11))), "6.0")

    assert [len(part.series) for part in parts] == [6, 6]
    assert all(part.series[0].name == "6.0" for part in parts)
    assert len({part.id for part in parts}) == 2


# ---- the terminal ----


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_without_a_terminal_each_lab_and_kernel_has_a_line(comparison: Comparison) -> None:
    out = io.StringIO()
    compare_views.print_comparison(comparison, out, 80)

    lines = out.getvalue().splitlines()
    line = next(line for line in lines if line.startswith(f"{A}  6.12  "))
    assert line.startswith(f"{A}  6.12  cost.op_ns (emulated)  +")
    assert "slower: a difference was established" in line
    assert sum(line.startswith("synthetic-") and "  n=" in line for line in lines) == 16
    assert any(line.startswith("A/A: 5.10 against itself") for line in lines)
    assert any(line.startswith("not counted: cut off 1") for line in lines)
    assert "\x1b" not in out.getvalue()


def test_a_terminal_has_a_table_that_fits_it(comparison: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    out = Terminal()
    compare_views.print_comparison(comparison, out, 70)

    lines = re.sub(r"\x1b\[[\d;]*m", "", out.getvalue()).splitlines()
    assert max(map(len, lines)) <= 70
    assert sum(line.startswith("lab ") for line in lines) == 2
    assert "38;5" not in out.getvalue()
    assert not re.search(r"\x1b\[(?:\d;)*3[1-7]", out.getvalue())
