"""The page as a document: what a browser would trip over, what must stand beside what, and what must not get in."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pytest

from reports import chart_checks, flame, html, record, schema, timeline
from reports.schema import Equality, Record
from tests.reports import made
from vm.errors import RecordError

VOID = {"meta", "link", "br", "path", "line", "circle"}
"""Elements that the page never closes: HTML's void ones, and SVG's, which it writes with a slash."""


class Page(HTMLParser):
    """Checks nesting while it reads, and keeps elements and text."""

    def __init__(self, content: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(content)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names), f"<{tag}> has an attribute twice: {names}"
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in {"path", "line", "circle"}, f"<{tag}/> is no way to close an HTML element"
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def content(found: Record) -> str:
    return html.page(found)


@pytest.fixture(scope="module")
def page(content: str) -> Page:
    return Page(content)


def test_every_element_is_closed_and_ids_are_unique(page: Page) -> None:
    assert page.open == []
    ids = Counter(attributes["id"] for _, attributes in page.elements if "id" in attributes)
    assert [name for name, count in ids.items() if count > 1] == []


def test_every_reference_leads_to_a_place_in_the_page_or_to_a_file_of_the_record(page: Page, found: Record) -> None:
    ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    references = {attributes["href"] for attributes in page.all("a")}
    links = {name.removeprefix("#") for name in references if name.startswith("#")}
    labels = {attributes["aria-labelledby"] for _, attributes in page.elements if "aria-labelledby" in attributes}
    assert links <= ids
    assert labels <= ids
    assert len(links) >= 12
    assert {name for name in references if not name.startswith("#")} == {"timeline.perfetto-trace"}
    assert "timeline.perfetto-trace" in {artefact.path for artefact in found.artefacts}


def test_nothing_is_fetched_and_nothing_runs(content: str, page: Page) -> None:
    assert "://" not in content
    assert page.all("script") == []
    assert {tag for tag, _ in page.elements} & {"img", "iframe", "object", "embed", "video", "form", "base"} == set()
    assert [attributes["href"] for attributes in page.all("link")] == ["data:,"]
    assert not re.search(r"url\(|@import|expression\(", content)
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    policy = [meta["content"] for meta in page.all("meta") if "http-equiv" in meta]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]


def test_verdicts_come_first_and_the_sections_have_their_order(page: Page) -> None:
    ids = [attributes["id"] for attributes in page.all("h2")]
    assert ids == [
        "verdicts", "book", "happened", "known", "time", "stacks", "fairness", "equality", "losses", "gates",
        "provenance", "artefacts",
    ]  # fmt: skip


def test_every_drawing_has_words_and_every_table_a_caption(content: str, page: Page) -> None:
    for attributes in page.all("svg"):
        assert attributes.get("aria-hidden") == "true" or (attributes["role"] == "img" and attributes["aria-label"])
    assert content.count("<table") == content.count("<caption") > 10
    assert all("scope" in attributes for attributes in page.all("th"))
    assert page.all("html") == [{"lang": "en"}]


def test_headings_descend_one_by_one(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_verdicts_are_told_by_words_and_sign_not_by_colour_alone(page: Page) -> None:
    text = " ".join(page.text.split())
    for words in ("confirmed", "refuted", "undecided", "not testable here"):
        assert words in text
    assert len(page.all("article")) == 4


TIME = re.compile(r'<span class="fig">[^<]*\d\u00a0(?:ns|µs|ms|s|ns/op)</span>(?P<rest>.{0,60})', re.DOTALL)


def test_each_time_of_the_machine_is_marked_as_emulated(content: str) -> None:
    times = list(TIME.finditer(content))
    assert len(times) > 30
    for match in times:
        assert match["rest"].lstrip().startswith(('<span class="tag">emulated<', '<span class="tag host">host<'))


def test_no_cell_paragraph_or_item_has_a_time_without_its_mark(content: str) -> None:
    blocks = [
        match[2]
        for match in re.finditer(r"<(td|th|p|li)\b[^>]*>((?:(?!<(?:td|th|p|li)\b).)*?)</\1>", content, re.DOTALL)
    ]
    timed = [block for block in blocks if re.search(r"\d\u00a0(?:ns|µs|ms|s|ns/op)\b", block)]
    assert len(timed) > 40
    assert [block for block in timed if "emulated" not in block and ">host<" not in block] == []


def test_axes_titles_and_stacks_in_time_are_marked_too(content: str) -> None:
    mark = '<span class="tag">emulated</span>'
    assert f"wait {mark} ↑" in content
    assert f"time since the first wait {mark} →" in content
    assert f"time for each operation (ns/op) {mark} ↑" in content
    for title in ("Waits over time", "How long they waited", "Cost by goroutines", "Who ran where", "Cost by lock"):
        assert f">{title} {mark}</h3>" in content
    assert "emulated time" in content
    assert f">From attempt to futex {mark}" not in content


@pytest.mark.parametrize(("clock", "tag"), [("kvm", ""), ("virtual", "counted instructions")])
def test_other_clocks_have_their_own_mark_or_none(found: Record, clock: str, tag: str) -> None:
    provenance = msgspec.structs.replace(found.provenance, clock=clock, accelerator=clock)
    content = html.page(msgspec.structs.replace(found, provenance=provenance))
    assert '<span class="tag">emulated' not in content
    assert ('<span class="tag">counted instructions' in content) is bool(tag)
    assert ("no nanoseconds of hardware" in content) is bool(tag)


HOSTILE = [
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(2)>",
    "\x1b[2J\x1b]0;owned\x07",
    "{{ 7 * 7 }}",
    "user\u202egnp.exe",
    "</style></title></table>",
]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page of a run whose workload, stacks, tools and errors all try to break out."""
    root = tmp_path_factory.mktemp("hostile")
    staging = made.staging(root / "staging", stacks=HOSTILE[:3])

    def spoil(output: dict[str, list[dict[str, dict[str, str]]]]) -> None:
        for segment, words in zip(output["segments"], HOSTILE * 3, strict=False):
            segment["parameters"][words] = words
            segment["section"] = words  # type: ignore[assignment]

    made.change(staging / "traced/workload.json", spoil)
    made.change(staging / "traced/trace.json", lambda t: t["losses"].update(dict.fromkeys(HOSTILE, 1)))
    made.change(staging / "traced/trace.json", lambda t: t["hits"].update(dict.fromkeys(HOSTILE, 1)))
    made.change(
        staging / "evidence.json",
        lambda e: e["provenance"].update(cmdline=HOSTILE[0], host={HOSTILE[1]: HOSTILE[2]}, go_version=HOSTILE[5]),
    )
    made.change(staging / "evidence.json", lambda e: e["phases"][2].update(error="".join(HOSTILE)))
    return html.render(record.seal(staging, made.folder(), root / "runs")).read_text()


def test_markup_out_of_a_machine_stays_text(hostile: str) -> None:
    page = Page(hostile)
    assert page.open == []
    assert page.all("script") == page.all("img") == []
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    for words in (HOSTILE[0], HOSTILE[1], HOSTILE[3], HOSTILE[5]):
        assert words in page.text


def test_no_character_of_the_page_acts(hostile: str) -> None:
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]", hostile)
    assert "\\x1b[2J\\x1b]0;owned\\x07" in hostile
    assert "user\\u202egnp.exe" in hostile


def test_200_000_events_make_a_page_below_2_mb(tmp_path: Path) -> None:
    path = record.seal(made.staging(tmp_path / "staging", count=200_000), made.folder(), tmp_path / "runs")
    report = html.render(path)
    assert report.stat().st_size < 2_000_000
    assert "200\u202f000 waits; most" in report.read_text()


def test_a_long_table_of_exact_counts_is_cut_and_keeps_what_differs() -> None:
    rows = [
        Equality(
            segment=number, parameters={"n": str(number)}, counter="park", expected=1, traced=int(number != 500), lost=0
        )
        for number in range(1, 511)
    ]
    table = html.equality_table(rows)
    assert (len(table.rows), table.omitted, table.checked, table.different) == (400, 110, 510, 1)
    assert table.rows[0].segment == 500


def test_an_old_record_is_rendered_again_from_its_folder_alone(
    sealed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object) -> None:
        raise AssertionError("rendering runs no analysis")

    monkeypatch.setattr(record, "load", forbidden)
    out = tmp_path / "again.html"
    assert html.render(sealed, out) == out
    assert html.render(sealed) == sealed / "report.html"
    assert out.read_bytes() == (sealed / "report.html").read_bytes()
    assert record.read(sealed).id == sealed.name
    assert [p.name for p in tmp_path.iterdir()] == ["again.html"]


def test_a_changed_record_is_not_rendered(tmp_path: Path) -> None:
    path = record.seal(made.staging(tmp_path / "staging"), made.folder(), tmp_path / "runs")
    (path / "console.log").write_text("another")
    with pytest.raises(RecordError, match="not the file that was sealed"):
        html.render(path)
    assert not (path / "report.html").exists()


def test_a_folder_that_cannot_be_written_is_told(sealed: Path, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="cannot be written"):
        html.render(sealed, tmp_path / "nowhere" / "report.html")


def test_a_run_in_which_everything_failed_has_a_page(tmp_path: Path) -> None:
    staging = made.staging(tmp_path / "staging")

    def fail(evidence: dict[str, list[dict[str, object]]]) -> None:
        for phase in evidence["phases"]:
            phase |= {"error": "the machine was lost", "exit_status": None, "files": {}}

    made.change(staging / "evidence.json", fail)
    content = html.render(record.seal(staging, made.folder(), tmp_path / "runs")).read_text()
    assert Page(content).open == []
    assert content.count("the machine was lost") >= 3
    assert "No waits were recorded" in content


def test_a_cell_without_a_figure_says_why(content: str) -> None:
    rows = [row.split("</tr>")[0] for row in content.split("<tr>") if ">spinlock</th>" in row]
    cells = [[re.sub("<[^>]*>", "", cell).strip() for cell in re.split("<t[hd]", row)[2:]] for row in rows]
    words = [[cell.split(">", 1)[-1] for cell in row] for row in cells]
    assert words == [["not measured: this Go has none", "not measured"], ["0", "not measured: no such lock"]]


def test_boxes_of_a_flame_graph_and_rows_of_a_timeline_have_words(page: Page) -> None:
    boxes = [attributes["title"] for tag, attributes in page.elements if tag == "i" and "title" in attributes]
    assert len(boxes) >= 4
    assert all(re.search(r": \S+\s\S+ \(emulated\), \S+%$", words) for words in boxes)
    lanes = [svg["aria-label"] for svg in page.all("svg") if svg.get("aria-label", "").startswith(("P ", "M "))]
    assert [words.split(":")[0] for words in lanes] == ["P 0", "P 1", "M 300", "M 301"]
    assert page.text.count("slices, busy") == len(lanes)


def test_the_largest_charts_that_a_record_may_hold_make_a_page_below_2_mb(found: Record) -> None:
    random = np.random.default_rng(4)
    count, ps = chart_checks.SLICES // 2, 8
    starts = np.arange(count, dtype=np.int64) * 1000
    runs = timeline.Runs(
        start_ns=starts, end_ns=starts + random.integers(1, 7000, count), goid=random.integers(18, 600, count),
        tid=300 + np.arange(count) % 32, proc=np.arange(count) % ps, reason=np.full(count, -1), reasons=[],
    )  # fmt: skip
    line = timeline.chart(runs, name="large", title="L", phase="traced", wanted=count)
    stacks = {
        tuple(f"example.org/module/package.(*Type{n}).Method" for n in random.integers(0, 9, 20)): 1.0
        for _ in range(2000)
    }
    tree = flame.flame(stacks, name="tree", title="T", caption="", phase="traced", unit="ns")
    assert line is not None
    assert tree is not None
    assert sum(len(lane.slices) for lane in line.lanes) > 0.9 * chart_checks.SLICES
    assert len(tree.nodes) > 0.5 * chart_checks.NODES
    large = msgspec.structs.replace(found, charts=[*found.charts, msgspec.structs.replace(line, trace=""), tree])
    content = html.page(schema.decode(schema.encode(large)))
    assert len(content.encode()) < 2_000_000
    assert Page(content).open == []


def test_figures_keep_their_place_when_printed_and_in_the_dark(content: str) -> None:
    assert "@media print" in content
    assert "@media (prefers-color-scheme: dark)" in content


def luminance(colour: str) -> float:
    """Relative luminance of ``#rrggbb`` (WCAG 2.2)."""
    channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("theme", [0, 1])
def test_text_has_the_contrast_that_wcag_asks_for(theme: int) -> None:
    sheet = (html.TEMPLATES / "style.css").read_text()
    block = re.findall(r":root \{(.*?)\}", sheet, re.DOTALL)[theme]
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
    pairs = [
        ("ink", "paper"),
        ("ink", "card"),
        ("soft", "paper"),
        ("soft", "card"),
        ("link", "paper"),
        ("mark", "card"),
        *[("ink", shade) for shade in ("line", "h1", "h2", "h3")],  # boxes of a flame graph
    ]
    pairs += [(name, f"{name}-paper") for name in ("ok", "no", "open", "na")]
    for front, back in pairs:
        bright, dim = sorted((luminance(colours[front]), luminance(colours[back])), reverse=True)
        assert (bright + 0.05) / (dim + 0.05) >= 4.5, f"{front} on {back}"


def test_the_page_names_its_schema_and_how_to_make_it_again(content: str, found: Record) -> None:
    assert f"schema {schema.SCHEMA}" in content
    assert f"invoke report runs/{found.id}" in content


def test_a_lab_that_belongs_to_no_section_says_none(found: Record) -> None:
    lab = msgspec.structs.replace(found.lab, section="")

    assert "of the book" in html.page(found).partition("<h1>")[0]
    assert "section" not in Page(html.page(msgspec.structs.replace(found, lab=lab)).partition("<h1>")[0]).text
