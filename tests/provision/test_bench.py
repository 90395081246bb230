"""Benchmarks on made-up contenders: medians, ratios, and what is said of what was not measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from provision.bench import labs, lives, machines, probes, vagrants
from provision.bench.figures import Figure, Result, Unmeasured, ratio, rows
from provision.bench.machines import Contender
from vm.errors import LabFailedError, MachineError
from vm.vagrant.domain import machine_id, person_data


def figure(name: str, *samples: float, limit: float | None = None) -> Figure:
    return Figure(name=name, meaning="made up", unit="s", samples=list(samples), limit=limit)


def test_one_slow_round_does_not_move_the_median() -> None:
    assert figure("warm", 0.8, 0.9, 30.0).median == 0.9


@pytest.mark.parametrize(("limit", "met"), [(None, None), (1.0, True), (0.9, True), (0.89, False), (0, False)])
def test_an_aim_is_met_by_the_median_at_most(limit: float | None, met: bool | None) -> None:
    assert figure("warm", 0.8, 0.9, 1.5, limit=limit).met is met


def test_losing_nothing_meets_the_aim_of_nothing() -> None:
    assert figure("lost", 0.0, 0.0, limit=0).met is True


def test_a_ratio_is_of_medians_and_absent_where_one_of_them_is() -> None:
    made = ratio("warm / vng", "", figure("warm", 1.0, 9.0, 1.0), figure("vng", 8.0, 7.0), 1 / 7)

    assert made is not None
    assert made.value == 1.0 / 7.5
    assert made.met is True
    assert ratio("x", "", figure("warm", 1.0), None) is None
    assert ratio("x", "", figure("warm", 1.0), figure("bpftrace", -3.0)) is None


def contender(name: str, seconds: list[float], calls: list[str]) -> Contender:
    left = iter(seconds)

    def run() -> float:
        calls.append(name)
        return next(left)

    return Contender(name, "made up", run)


def test_contenders_take_turns_and_the_first_round_is_not_counted() -> None:
    calls: list[str] = []
    both = [contender("ours", [50.0, 1.0, 2.0], calls), contender("theirs", [60.0, 8.0, 9.0], calls)]

    figures, out = machines.in_turn(both, 2, lambda _: None)

    assert calls == ["ours", "theirs"] * 3
    assert [each.samples for each in figures] == [[1.0, 2.0], [8.0, 9.0]]
    assert out == []


def test_a_contender_that_fails_is_out_with_the_reason_and_without_figures() -> None:
    def fail() -> float:
        raise MachineError("vng ended with status 1: no 9p")

    figures, out = machines.in_turn(
        [contender("ours", [1.0, 1.0, 1.0], []), Contender("vng", "", fail)], 2, lambda _: None
    )

    assert [each.name for each in figures] == ["ours"]
    assert out == [Unmeasured(name="vng", reason="vng ended with status 1: no 9p")]


@pytest.mark.parametrize("ask", [lambda: machines.virtme_ng("", emulated=True), lambda: vagrants.peer("6.1", print)])
def test_a_peer_that_is_not_installed_is_said_to_be_so(
    ask: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")

    found = ask()

    assert isinstance(found, Unmeasured)
    assert "not installed" in found.reason


# As `labtrace calibrate` printed it on an emulated 6.1 machine, before what bpftrace said.
CALIBRATION = """{"pp_ns":3301.5,"entry_ns":21015.2,"ret_ns":4100.0,"bare_ns":9.8,"calls":147456}
READY
Attached 2 probes

@: 147460
"""


def test_the_calibration_is_read_from_before_what_bpftrace_said() -> None:
    assert probes._cost(CALIBRATION)["pp_ns"] == 3301.5


@pytest.mark.parametrize("text", ["", "{}", "[1]", "labtrace: no such file", '{"pp_ns": 1}'])
def test_a_calibration_that_says_something_else_is_an_error(text: str) -> None:
    with pytest.raises(LabFailedError):
        probes._cost(text)


def test_the_document_holds_samples_medians_and_reasons() -> None:
    result = Result(
        started="2026-11-23T12:00:00+00:00",
        kernel="6.1.0-56-cloud-amd64",
        accelerator="tcg",
        host={"cpu": "made up"},
        load_before={"load1": 0.1},
        figures=[figure("warm", 0.8, 0.9, 1.0, limit=1.0)],
        unmeasured=[Unmeasured(name="vagrant", reason="Vagrant is not installed")],
    )

    document = json.loads(json.dumps(result.document()))

    assert document["figures"][0]["samples"] == [0.8, 0.9, 1.0]
    assert (document["figures"][0]["median"], document["figures"][0]["met"]) == (0.9, True)
    assert document["unmeasured"] == [{"name": "vagrant", "reason": "Vagrant is not installed"}]
    assert rows(result) == [("warm", "0.9 s", "0.8 to 1", "3", "1", "yes", "made up")]


# As the workload and the loader printed them in an emulated 6.1 machine, shortened.
LIVES = """{"schema":1,"lab":"lifecycle","segments":[{"id":511,"section":"self-test","counts":{},"samples":{}},\
{"id":1,"section":"churn","counts":{"lives":4800},"samples":{"ns_per_life":[24000.5,30000,26000]}}]}
{"schema":3,"counters":{"1":{"created":4800,"ended":4799},"511":{"created":5}},"losses":{"ring_full":2,"expired":0},\
"load_seconds":0.25,"attach_seconds":0.05,"calibrate_seconds":0.3}
""".replace("\\\n", "")


def test_a_traced_run_is_held_against_the_true_number() -> None:
    found = lives._Samples([], [], [], [], [], [])

    lives._traced(LIVES, found)

    assert (found.ours, found.wrong, found.lost) == ([26000.0], [1.0], [2.0])
    assert found.attached == [pytest.approx(0.6)]


@pytest.mark.parametrize("text", ["", "READY", "{}", '{"segments": []}', '{"segments"'])
def test_a_document_that_says_something_else_is_an_error(text: str) -> None:
    with pytest.raises(LabFailedError):
        lives._life(text)


def test_bpftrace_gets_each_function_at_its_entry() -> None:
    from tests.bpf.programs import gofmt

    data = gofmt()
    offsets = lives.entries(data)

    text = lives.script(offsets)

    assert set(offsets) == set(lives.ENTRIES)
    assert all(f"lifecycle:{offset:#x} {{ @" in text for offset in offsets.values())
    assert "@newproc1 = count();" in text
    # The stack check: cmp 0x10(%r14),%rsp, or lea for a large frame.
    assert all(
        data[offset : offset + 3] in (b"\x49\x3b\x66", b"\x4c\x8d\x64", b"\x4c\x8d\xa4") for offset in offsets.values()
    )


UUID = "0d7f3c3e-5a0e-4a3c-9c0a-1b2c3d4e5f60"

# Writes down what it is asked and by whom; `up` and `destroy` leave in the data folder what Vagrant does.
VAGRANT = r"""#!/bin/sh
{ echo "vagrant $*"; env; echo; } >> "$ASKED"
data="$VAGRANT_DOTFILE_PATH/machines/lab-6.1/libvirt"
case "$*" in
    *up*) mkdir -p "$data" && printf %s UUID > "$data/id"; exit "$UP_ENDS" ;;
    *destroy*) rm -f "$data/id" ;;
esac
"""


@dataclass
class Asked:
    """A host with a Vagrant that only writes down what it is asked; labs are played, too."""

    path: Path
    labs: list[tuple[tuple[str, ...], dict[str, str]]] = field(default_factory=list)

    def commands(self) -> list[tuple[str, dict[str, str]]]:
        """Return each command of Vagrant's, with its environment."""
        blocks = self.path.read_text().split("\n\n")[:-1]
        rows = [block.strip("\n").splitlines() for block in blocks]
        return [(row[0], dict(line.partition("=")[::2] for line in row[1:])) for row in rows]

    def lab(self, _line: str, runs: Path, _name: str, *more: str, environment: Mapping[str, str]) -> tuple[float, Path]:
        """Stand in for a lab of 7 s, of which its phases are 5 s."""
        self.labs.append((more, dict(environment)))
        phase = {"name": "plain", "wall_seconds": 5.0, "workload_seconds": 4.0}
        (runs / "run.json").write_text(json.dumps({"phases": [phase], "losses": []}))
        return 7.0, runs


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asked:
    """A person who has a machine lab-6.1, and wishes for their machines in the environment."""
    for name, text in (("vagrant", VAGRANT.replace("UUID", UUID)), ("virsh", "#!/bin/sh\n")):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(text)
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("ASKED", str(tmp_path / "asked"))
    monkeypatch.setenv("UP_ENDS", "0")
    monkeypatch.setenv("LAB_CPUS", "7")
    monkeypatch.setenv("VAGRANT_DOTFILE_PATH", str(tmp_path / "persons"))
    monkeypatch.setenv("KMLAB_STATE", str(tmp_path / "state"))
    mine = person_data() / "machines" / "lab-6.1" / "libvirt" / "id"
    mine.parent.mkdir(parents=True)
    mine.write_text(UUID)
    made = Asked(tmp_path / "asked")
    monkeypatch.setattr(labs, "run", made.lab)
    return made


def test_vagrant_is_measured_on_machines_of_the_benchmarks_own(asked: Asked, tmp_path: Path) -> None:
    vagrants.measure("6.1", 1, lambda _: None)
    peer = vagrants.peer("6.1", lambda _: None)
    assert isinstance(peer, Contender)
    peer.run()

    for environment in [environment for _, environment in (*asked.commands(), *asked.labs)]:
        assert not environment["VAGRANT_DOTFILE_PATH"].startswith(str(tmp_path))
        assert not environment["KMLAB_STATE"].startswith(str(tmp_path))
        assert environment["LAB_PREFIX"].startswith("kmlab-bench-")
        assert "LAB_CPUS" not in environment
        assert environment["VAGRANT_DEFAULT_PROVIDER"] == "libvirt"
    assert machine_id(person_data(), "lab-6.1") == UUID


def test_each_time_by_hand_is_one_place_and_the_first_time_is_not_counted(asked: Asked) -> None:
    figures = {each.name: each for each in vagrants.measure("6.1", 2, lambda _: None)}

    places = [environment["VAGRANT_DOTFILE_PATH"] for _, environment in asked.commands()]
    assert [command for command, _ in asked.commands()] == ["vagrant up lab-6.1", "vagrant destroy -f lab-6.1"] * 3
    assert places[::2] == places[1::2]
    assert len(set(places)) == 3
    machine = ("--provider", "vagrant", "--machine", "lab-6.1")
    assert [more for more, _ in asked.labs] == [machine, machine, machine[:2], machine, machine[:2]]
    assert asked.labs[0][1]["VAGRANT_DOTFILE_PATH"] == places[0]
    beyond, ours = figures["vagrant second"], figures["vagrant lab"]
    assert isinstance(beyond, Figure)
    assert isinstance(ours, Figure)
    assert (beyond.samples, ours.samples) == ([2.0, 2.0], [7.0, 7.0])


def test_what_a_failed_round_left_is_destroyed_and_the_reason_is_told(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UP_ENDS", "1")

    (found,) = vagrants.measure("6.1", 1, lambda _: None)

    assert isinstance(found, Unmeasured)
    assert found.reason.startswith("vagrant ended with status 1")
    (_, up), (command, destroy) = asked.commands()
    assert "destroy lab-6.1" in command
    assert up["VAGRANT_DOTFILE_PATH"] == destroy["VAGRANT_DOTFILE_PATH"]
    assert not Path(up["VAGRANT_DOTFILE_PATH"]).parent.exists()
