"""``[[attempts]]`` of lab.toml: what can be meant, and what is refused when the lab is loaded."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from go_labs import attempts, spec
from vm.errors import ConfigError

TRIED = Path(__file__).parents[1] / "provision" / "fixtures" / "tried"


@pytest.mark.parametrize(
    ("what", "kind", "parts"),
    [
        ("kprobe:runtime.chansend", "kprobe", ("runtime.chansend",)),
        ("kprobe:ext4:ext4_sync_file", "kprobe", ("ext4:ext4_sync_file",)),
        ("tracepoint:sched:sched_switch", "tracepoint", ("sched", "sched_switch")),
        ("field:sched:sched_switch:prev_state", "field", ("sched", "sched_switch", "prev_state")),
        ("kallsyms:sync.(*Mutex).Lock", "kallsyms", ("sync.(*Mutex).Lock",)),
        ("function:slices.Sort[go.shape.int]", "function", ("slices.Sort[go.shape.int]",)),
        ("bpftool:map create '/x y' type array", "bpftool", ("map", "create", "/x y", "type", "array")),
    ],
)
def test_what_is_tried_is_taken_apart(what: str, kind: str, parts: tuple[str, ...]) -> None:
    assert attempts.parse(what) == attempts.Trial(kind, parts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("chansend", "nothing that can be tried"),
        ("kretprobe:runtime.chansend", "nothing that can be tried"),
        ("kprobe:", "not written as kprobe:SYMBOL"),
        ("kprobe:a b", "not written as kprobe:SYMBOL"),
        ("kprobe:a\np:other do_exit", "not written as kprobe:SYMBOL"),
        (f"kallsyms:{'a' * 257}", "not written as kallsyms:SYMBOL"),
        ("tracepoint:sched", "not written as tracepoint:CATEGORY:NAME"),
        ("tracepoint:sched:../../etc", "not written as tracepoint:CATEGORY:NAME"),
        ("field:sched:sched_switch", "not written as field:CATEGORY:NAME:FIELD"),
        ("bpftool: ", "not written as bpftool:WORDS"),
        ("bpftool:prog 'list", "not written as bpftool:WORDS"),
        ("bpftool:prog attach id 1 uprobe", "names no program"),
    ],
)
def test_what_cannot_be_meant_is_refused(what: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        attempts.parse(what)


def changed(folder: Path, edit: Callable[[str], str]) -> Path:
    shutil.copytree(TRIED, folder)
    path = folder / "lab.toml"
    before = path.read_text()
    path.write_text(edit(before))
    assert path.read_text() != before
    return folder


def test_a_lab_is_loaded_with_what_it_tries() -> None:
    lab = spec.load(TRIED).lab

    assert len(lab.attempts) == 15
    assert [attempt.id for attempt in lab.attempts if attempt.control][:2] == ["kprobe_openat2", "sched_switch"]


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ('id = "chanpark"', 'id = "ChanPark"', "attempt 'ChanPark' has no good id"),
        ('id = "chanpark"', 'id = "next_state"', "attempt next_state is there twice"),
        ("kprobe:runtime.chansend", "kprobes:runtime.chansend", "nothing that can be tried"),
        ('metric = "attempt.chanpark"', 'metric = "attempt.chan_park"', "there is no attempt chan_park"),
        ('metric = "attempt.bpftool_show"', 'metric = "attempt.show"', "there is no attempt show"),
    ],
)
def test_a_lab_whose_attempts_do_not_hold_together_is_not_loaded(
    tmp_path: Path, before: str, after: str, words: str
) -> None:
    folder = changed(tmp_path / "tried", lambda text: text.replace(before, after, 1))

    with pytest.raises(ConfigError, match=words) as caught:
        spec.load(folder)
    assert str(folder / "lab.toml") in caught.value.message
