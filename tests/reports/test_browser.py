"""The page in a real browser, where there is one: nothing on the console, and no width that it does not fit."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from reports import compare_page, html, ledger, ledger_views
from vm import lock as locks

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

FRAME = """<!doctype html><title>frame</title><body>
<iframe id="f" src="report.html" style="width:{width}px;height:900px"></iframe><script>
document.getElementById("f").onload = () => {{
  const page = document.getElementById("f").contentDocument;
  const seen = page.documentElement;
  document.body.dataset.width = seen.clientWidth + " " + seen.scrollWidth;
  document.body.dataset.requests = document.getElementById("f").contentWindow.performance
    .getEntriesByType("resource").length;
}};
</script>"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(params=["sealed", "recorded", "ledger", "comparison"])
def served(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """Address on loopback of a folder with the report and a frame around it for each width."""
    if BROWSER is None:
        pytest.skip("no browser here")
    if request.param == "ledger":
        found = ledger.collect(request.getfixturevalue("recorded").parent)
        made = ledger.make(ledger.choose_labs([]), ledger.choose_lines([], found, locks.read()), found)
        ledger_views.write_page(made, tmp_path, tmp_path / "report.html")
    elif request.param == "comparison":
        folder = request.getfixturevalue("made_up")
        compare_page.write_page(request.getfixturevalue("comparison"), folder, tmp_path / "report.html")
    else:
        html.render(request.getfixturevalue(request.param), tmp_path / "report.html")
    for width in (360, 1366):
        (tmp_path / f"{width}.html").write_text(FRAME.format(width=width))
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def visit(address: str, profile: Path) -> subprocess.CompletedProcess[str]:
    """Open ``address`` and return the document as it then is, and what the browser logged."""
    assert BROWSER is not None
    switches = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync --enable-logging=stderr --virtual-time-budget=4000 --dump-dom"
    )
    command = [BROWSER, *switches.split(), f"--user-data-dir={profile}", address]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)


@pytest.mark.parametrize("width", [360, 1366])
def test_the_page_fits_its_window_asks_for_nothing_and_says_nothing(served: str, tmp_path: Path, width: int) -> None:
    done = visit(f"{served}/{width}.html", tmp_path / "profile")
    found = re.search(r'data-width="(\d+) (\d+)" data-requests="(\d+)"', done.stdout)
    assert found is not None, done.stdout[-2000:]
    shown, needed, requests = map(int, found.groups())
    assert 0 < needed <= shown
    assert shown <= width
    assert requests == 0
    assert [line for line in done.stderr.splitlines() if ":CONSOLE" in line] == []


def test_a_console_message_would_be_seen(served: str, tmp_path: Path) -> None:
    (tmp_path / "360.html").write_text("<!doctype html><script>console.error('seen')</script>")
    assert ":CONSOLE" in visit(f"{served}/360.html", tmp_path / "profile").stderr
