"""What holds for every test: a skip is a failure unless it is on the list below, and a made-up home by choice.

A test that quietly skips is a check that cannot fail. So each reason that may be met on a host that can do everything
README asks for is written down here, with why.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.vagrant_host import VagrantHost, hosting
from vm.paths import Layout
from vm.registry import Process

MAY_SKIP: dict[str, str] = {
    "KVM does not work here": "few test hosts have it; what needs it is not judged elsewhere",
    "no Vagrant here": "the second provider is optional",
    "nobody here may become root": "one test makes name spaces that only root may make, and sudo asks for a password",
    "no browser here": "rendering is also checked as a document; a browser is no part of the lab",
}
"""Start of a skip's reason → why it may be met."""


def pytest_configure() -> None:
    """Take the person's own wishes out of the environment: they are no part of what is tested."""
    for name in ("NO_COLOR", "KMLAB_ARCHIVE"):
        os.environ.pop(name, None)
    # A shell without job control starts what it puts into the background with SIGINT ignored, nohup ignores SIGHUP, and
    # both pass to every child. What is tested is what these signals do.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip that is not on the list into a failure."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reason = reason.removeprefix("Skipped: ")
        if not reason.startswith(tuple(MAY_SKIP)):
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid} was skipped: {reason} (tests/conftest.py lists what may be)"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a module that skips itself while it is imported: it never reaches the hook above."""
    report = yield
    if report.skipped:
        report.outcome = "failed"
        report.longrepr = f"{collector.nodeid} skipped itself as a whole: {report.longrepr}"
    return report


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """Paths below a folder of this test's own."""
    return Layout(cache=tmp_path / "cache", state=tmp_path / "state", runs=tmp_path / "runs")


@pytest.fixture
def dead() -> Process:
    """A process that was there and has ended."""
    child = subprocess.Popen(["sleep", "1000"])
    process = Process.of(child.pid)
    child.kill()
    child.wait()
    assert process is not None
    return process


@pytest.fixture(scope="session")
def vagrant_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VagrantHost]:
    """A host on which Vagrant can start machines; nothing of what was made there is left after the last test."""
    if shutil.which("vagrant") is None or shutil.which("virsh") is None:
        pytest.skip("no Vagrant here: ./setup.sh --with-vagrant installs it")
    with hosting(tmp_path_factory.getbasetemp()) as host:
        yield host
