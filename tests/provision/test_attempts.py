"""Attempts: what the host tells from the workload, the machine's script without a kernel to try on, its answers."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import msgspec
import pytest

from go_labs import spec
from go_labs.evidence import AttemptResult
from go_labs.spec import Attempt
from provision import attempts, gobuild, payload, toolchains
from provision.attempts import Functions
from provision.ssh import Completed
from vm.paths import Layout

TRIED = Path(__file__).parent / "fixtures" / "tried"
SCRIPT = payload.GUEST_SCRIPTS / "attempts.py"

ERROR_LOG = """\
[   17.067956] trace_kprobe: error: Invalid probed address or symbol
  Command: p:kmlab_9/a runtime.chansend
                       ^
[  120.934213] trace_kprobe: error: Event already exists
  Command: p:kmlab_9/b do_sys_openat2
             ^
"""
"""Of 6.1; the entry of somebody else's command stands beside ours."""

FORMAT = """\
name: sched_switch
ID: 314
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

\tfield:char prev_comm[16];\toffset:8;\tsize:16;\tsigned:1;
\tfield:long prev_state;\toffset:32;\tsize:8;\tsigned:1;
\tfield:__data_loc char[] msg;\toffset:40;\tsize:4;\tsigned:1;

print fmt: "next_state=%d", REC->next_state; field:int next_state;
"""


@pytest.fixture(scope="module")
def script() -> ModuleType:
    found = importlib.util.spec_from_file_location("guest_attempts", SCRIPT)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_the_kernels_words_are_those_of_our_own_command(script: ModuleType) -> None:
    words = "trace_kprobe: error: Invalid probed address or symbol"
    assert script.logged(ERROR_LOG, "p:kmlab_9/a runtime.chansend") == words
    assert script.logged(ERROR_LOG, "p:kmlab_9/c runtime.chansend") == ""


def test_fields_are_read_from_the_format_and_not_from_the_print_line(script: ModuleType) -> None:
    assert script.fields_of(FORMAT) == ["common_type", "common_pid", "prev_comm", "prev_state", "msg"]


def test_a_symbol_is_found_as_a_whole_name_only(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = tmp_path / "kallsyms"
    listed.write_text("ffffffff81000000 T schedule_timeout\nffffffff81000010 t tun_get\t[tun]\n")
    monkeypatch.setattr(script, "KALLSYMS", listed)

    assert script.kallsyms("tun_get").done
    assert script.kallsyms("schedule_timeout").done
    assert script.kallsyms("schedule") == (False, "not among 2 symbols", {"symbols": 2})


def test_a_name_that_is_taken_is_no_refusal(script: ModuleType) -> None:
    with pytest.raises(script.Untried, match="File exists"):
        script.refused(FileExistsError(17, "File exists"))
    assert script.refused(OSError(22, "Invalid argument")) == (False, "Invalid argument", {"errno": "EINVAL"})


def ask(script: ModuleType, tracing: Path, kind: str, *parts: str) -> dict[str, object]:
    script.TRACING = tracing
    answer = script.answer({"id": "a", "kind": kind, "parts": parts, "offset": 0}, SCRIPT)
    assert isinstance(answer, dict)
    return answer


@pytest.mark.parametrize("kind", ["kprobe", "uprobe", "tracepoint", "field"])
def test_without_tracefs_nothing_was_tried(script: ModuleType, tmp_path: Path, kind: str) -> None:
    answer = ask(script, tmp_path, kind, "sched", "sched_switch", "prev_state")
    assert answer["done"] is False
    assert "is not there" in str(answer["untried"])


def test_a_tracepoint_that_is_not_there_is_refused_with_its_path(script: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "events" / "sched" / "sched_switch").mkdir(parents=True)
    switch = tmp_path / "events" / "sched" / "sched_go_start" / "enable"

    answer = ask(script, tmp_path, "tracepoint", "sched", "sched_go_start")

    assert answer["words"] == f"No such file or directory: {switch}"
    assert answer["facts"] == {"errno": "ENOENT", "tracepoints_in_category": 1}


def test_a_tracepoint_that_somebody_has_enabled_is_left_alone(script: ModuleType, tmp_path: Path) -> None:
    switch = tmp_path / "events" / "sched" / "sched_switch" / "enable"
    switch.parent.mkdir(parents=True)
    switch.write_text("1\n")

    answer = ask(script, tmp_path, "tracepoint", "sched", "sched_switch")

    assert (answer["done"], answer["words"]) == (True, "it was enabled already")
    assert switch.read_text() == "1\n"


def test_the_script_answers_every_request_and_in_the_shape_that_is_read(tmp_path: Path) -> None:
    asked = json.dumps(
        [{"id": "a", "kind": "field", "parts": ["no", "such", "x"]}, {"id": "b", "kind": "?", "parts": []}]
    )
    done = subprocess.run(
        [sys.executable, "-IS", SCRIPT, tmp_path], input=asked.encode(), capture_output=True, check=False, timeout=60
    )

    answers = attempts.read(Completed("it", done.returncode, done.stdout, done.stderr))

    assert isinstance(answers, dict), done.stderr
    assert answers["b"].untried == "nobody here knows how to try ?"
    assert answers["a"].untried.endswith("/no/such/format is not there")


@pytest.mark.parametrize(
    ("done", "words"),
    [
        (Completed("it", 124, b"", b"Killed\n"), "it ended with status 124: Killed"),
        (Completed("it", 0, b"<html>", b""), "is no list of results"),
        (Completed("it", 0, b'[{"id": "a", "done": "yes"}]', b""), "is no list of results"),
        (Completed("it", 0, b"\xff", b""), "is no list of results"),
    ],
)
def test_an_answer_that_cannot_be_read_is_no_refusal(done: Completed, words: str) -> None:
    answers = attempts.read(done)
    assert isinstance(answers, str)
    assert words in answers

    asked = [Attempt(id="a", what="kprobe:x", meaning="")]
    _, requests = attempts.prepare(asked, Functions(Path("none")))
    assert attempts._answered(asked, requests, answers)["a"].untried == answers
    assert attempts._answered(asked, requests, {})["a"].untried == "the machine gave no answer to it"


def test_a_workload_that_cannot_be_read_leaves_its_functions_untried() -> None:
    results, requests = attempts.prepare([Attempt(id="a", what="uprobe:main.main", meaning="")], Functions(SCRIPT))

    assert requests == []
    assert results["a"].untried == "attempts.py is not an ELF file"


@pytest.fixture(scope="module")
def found() -> tuple[dict[str, AttemptResult], list[dict[str, object]]]:
    layout = Layout.from_environment()
    binary = gobuild.build(TRIED, toolchains.go_for(toolchains.versions()[-1], layout), layout)
    results, requests = attempts.prepare(spec.load(TRIED).lab.attempts, Functions(binary))
    return results, msgspec.to_builtins(requests)


@pytest.mark.build
def test_a_function_is_there_or_inlined_or_nowhere(
    found: tuple[dict[str, AttemptResult], list[dict[str, object]]],
) -> None:
    results, _ = found

    assert results["chansend1"].done
    assert results["chanpark"].words.endswith("the name is nowhere in it")
    assert results["acquirem"].words.endswith("it was inlined wherever it is called")
    assert results["acquirem"].facts["go"] == f"go{toolchains.versions()[-1]}"
    functions = results["acquirem"].facts["functions"]
    assert isinstance(functions, int)
    assert functions > 1000


@pytest.mark.build
def test_the_machine_is_asked_for_what_the_host_cannot_tell(
    found: tuple[dict[str, AttemptResult], list[dict[str, object]]],
) -> None:
    results, requests = found

    assert "uprobe_chanpark" in results
    uprobe = next(request for request in requests if request["id"] == "uprobe_closechan")
    assert isinstance(uprobe["offset"], int)
    assert uprobe["offset"] > 0
    assert set(results) | {request["id"] for request in requests} == {a.id for a in spec.load(TRIED).lab.attempts}
