"""Probe plans of real binaries: seven Go versions, PIE, stripped, and those that no plan can be made for."""

from __future__ import annotations

import dataclasses
import os
import struct
from collections.abc import Sequence
from pathlib import Path

import pytest

from bpf import plan as plans
from bpf import probes
from bpf.elf import Elf
from bpf.hooks import Hook, Name, ProbeSet
from bpf.pclntab import FunctionTable
from bpf.plan import Plan, make_plan, plan_for
from bpf.probes import SETS
from provision.gobuild import PLAIN, Variant
from tests.bpf.programs import DEFAULT, FIXTURES, VERSIONS, gofmt, gofmt_as, probed
from vm.errors import ProbeError, UsageError

PUSH_RBP, RET = 0x55, 0xC3

VARIANTS = {
    "plain": PLAIN,
    "pie": Variant(pie=True),
    "stripped": Variant(stripped=True),
    "pie-stripped": Variant(pie=True, stripped=True),
}


def places(plan: Plan) -> list[tuple[str, str, int, int]]:
    return [(p.id, p.point, p.address, p.offset) for p in plan.probes]


def mutex_plan(elf: Elf) -> Plan:
    return make_plan(elf, [probes.MUTEX])


def one(name: str, **changes: object) -> ProbeSet:
    """Return a set with one required hook."""
    hook = dataclasses.replace(Hook("one", "go_one", (Name(name),)), **changes)  # type: ignore[arg-type]
    return ProbeSet(name="one", hooks=(hook,))


def line_of(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


# --- a binary that needs no build ---------------------------------------------------------------------------------


def test_a_program_without_dwarf_gets_its_offsets_from_the_table() -> None:
    plan = mutex_plan(Elf("gofmt", gofmt()))

    assert (plan.offsets["goid"].value, plan.offsets["goid"].source) == (152, "table")
    assert plan.reasons == {
        "mutex": 22, "rwmutex_read": 23, "rwmutex_write": 24, "semacquire": 13, "chan_receive": 19, "chan_send": 20,
    }  # fmt: skip
    assert (plan.recorded, plan.kernel, plan.features) == ([22, 23, 24], ["futex", "sched_switch"], ["locks"])
    assert [m.id for m in plan.missing] == ["mark"]


def test_each_probe_sits_on_the_instruction_it_says() -> None:
    data = gofmt()

    plan = make_plan(Elf("gofmt", data), [probes.MUTEX, one("runtime.gopark", point="ret")])

    kinds = {"pp": PUSH_RBP, "ret": RET}
    assert {p.point for p in plan.probes} == set(kinds)
    assert all(data[p.offset] == kinds[p.point] for p in plan.probes)


def test_a_plan_survives_the_way_through_a_file(tmp_path: Path) -> None:
    plan = mutex_plan(Elf("gofmt", gofmt()))
    path = tmp_path / "plan.json"
    path.write_bytes(plans.to_json(plan))

    assert plans.read(path) == plan


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"schema": 2}'])
def test_a_file_that_is_no_plan_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(content)

    with pytest.raises(ProbeError, match="is no probe plan"):
        plans.read(path)


def test_a_person_reads_function_place_and_source() -> None:
    text = plans.to_text(mutex_plan(Elf("gofmt", gofmt())))

    lines = {line.split()[0]: line.split() for line in text.splitlines() if line}
    assert lines["gofmt"] == ["gofmt", "Go", DEFAULT]
    assert lines["park"][1:3] == ["go_park", "pp"]
    assert lines["park"][-1] == "runtime.gopark"
    assert lines["goid"] == ["goid", "152", "table"]
    assert lines["mark"][1] == "kmlab/labkit.mark"


def test_sets_that_share_a_hook_attach_it_once() -> None:
    again = dataclasses.replace(probes.MUTEX, name="again")

    plan = make_plan(Elf("gofmt", gofmt()), [probes.MUTEX, again])

    assert places(plan) == places(mutex_plan(Elf("gofmt", gofmt())))


def with_section_renamed(data: bytes, name: str, new: str) -> bytes:
    """Return the file with one section called otherwise: its new name is put behind the table of names."""
    elf = Elf("renamed", data)
    section, names = elf.section(name), elf.section(".shstrtab")
    assert section is not None
    assert names is not None
    headers, size = struct.unpack_from("<Q", data, 0x28)[0], struct.unpack_from("<H", data, 0x3A)[0]
    changed = bytearray(data + new.encode() + b"\0")
    struct.pack_into("<I", changed, headers + section.index * size, len(data) - names.offset)
    return bytes(changed)


@pytest.mark.parametrize("name", [".data.rel.ro.gopclntab", ".data.rel.ro"])
def test_the_function_table_is_found_where_a_pie_has_it(name: str) -> None:
    moved = Elf("gofmt", with_section_renamed(gofmt(), ".gopclntab", name))

    assert moved.section(".gopclntab") is None
    assert places(mutex_plan(moved)) == places(mutex_plan(Elf("gofmt", gofmt())))


def test_a_program_without_function_table_is_refused() -> None:
    message = refusal(Elf("gofmt", with_section_renamed(gofmt(), ".gopclntab", ".packed")))

    assert message == "gofmt has no Go function table (.gopclntab)"


# --- no plan ------------------------------------------------------------------------------------------------------


def refusal(elf: Elf, sets: Sequence[ProbeSet] = (probes.MUTEX,)) -> str:
    with pytest.raises(ProbeError) as caught:
        make_plan(elf, sets)
    assert caught.value.hint
    return caught.value.message


def test_an_unknown_set_names_those_there_are() -> None:
    with pytest.raises(UsageError, match="no probe set 'mutexes'") as caught:
        plan_for(Path("absent"), ["mutexes"])
    assert "calibration, channel" in caught.value.hint


def test_a_file_that_is_absent(tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match="cannot be read"):
        plan_for(tmp_path / "absent", ["mutex"])


def test_a_pipe_is_refused_before_it_is_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    with pytest.raises(ProbeError, match="no regular file"):
        plan_for(pipe, ["mutex"])


def test_a_folder_is_no_binary(tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match="cannot be read"):
        plan_for(tmp_path, ["mutex"])


def test_a_script_is_no_elf_file(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\nexit 0\n")

    with pytest.raises(ProbeError, match="is not an ELF file"):
        plan_for(script, ["mutex"])


def test_a_c_program_is_no_go_program() -> None:
    with pytest.raises(ProbeError, match="is not a Go program"):
        plan_for(Path("/bin/sh").resolve(), ["mutex"])


def test_another_architecture_is_named() -> None:
    data = bytearray(gofmt())
    struct.pack_into("<H", data, 18, 183)  # e_machine, EM_AARCH64

    with pytest.raises(ProbeError, match="another architecture \\(EM_AARCH64\\)"):
        Elf("gofmt", bytes(data))


def test_an_object_file_is_no_executable() -> None:
    data = bytearray(gofmt())
    struct.pack_into("<H", data, 16, 1)  # e_type, ET_REL

    with pytest.raises(ProbeError, match="is no executable"):
        Elf("gofmt", bytes(data))


def test_go_before_1_21_is_too_old() -> None:
    assert "probes are known from Go 1.21 on" in refusal(gofmt_as("1.20.3"))


def test_go_after_the_table_needs_dwarf() -> None:
    message = refusal(gofmt_as("1.99.3"))

    assert "Go 1.99.3" in message
    assert "the offset of g_m is not known" in message
    assert "Go 1.21 to 1.27" in message


def test_a_release_candidate_is_not_spoken_for_by_the_table() -> None:
    assert "is not known" in refusal(gofmt_as("1.27rc"))


def test_an_unknown_function_table_is_refused() -> None:
    data = gofmt()
    at = data.index(bytes.fromhex("f1ffffff00000108"))

    message = refusal(Elf("gofmt", data[:at] + bytes.fromhex("f2") + data[at + 1 :]))

    assert "unknown form (0xfffffff2)" in message


def test_a_required_function_that_is_absent_is_named() -> None:
    message = refusal(Elf("gofmt", gofmt()), [one("main.calibrationTarget", runtime=False)])

    assert message == f"gofmt (Go {DEFAULT}): there is no function main.calibrationTarget"


def test_an_optional_function_that_is_absent_is_listed() -> None:
    plan = make_plan(Elf("gofmt", gofmt()), [one("sync.notThere", required=False)])

    assert plan.probes == []
    assert [(m.id, m.symbol, m.required) for m in plan.missing] == [("one", "sync.notThere", False)]


def test_an_absent_function_of_an_unknown_go_may_have_another_name() -> None:
    # Zero hits would be believed there, so that even an optional one is refused.
    message = refusal(gofmt_as("1.99.3"), [one("sync.notThere", required=False)])

    assert "may name it otherwise" in message


def test_a_name_that_two_functions_have_is_ambiguous() -> None:
    # Overwrite the name offset of one function with that of another: both are then called the same.
    elf = Elf("gofmt", gofmt())
    table = FunctionTable(elf)
    (park,), (execute,) = table.find("runtime.gopark"), table.find("runtime.execute")
    names = [int(table._name_offsets[f.index]) for f in (park, execute)]
    section = elf.section(".gopclntab")
    assert section is not None
    funcs = section.offset + section.size - len(table._funcs)
    data = bytearray(gofmt())
    struct.pack_into("<i", data, funcs + int(table._offsets[execute.index]) + 4, names[0])

    assert "runtime.gopark is ambiguous, 2 functions" in refusal(Elf("gofmt", bytes(data)))


def test_code_that_cannot_be_decoded_is_refused() -> None:
    elf = Elf("gofmt", gofmt())
    (park,) = FunctionTable(elf).find("runtime.gopark")
    at = elf.file_offset(park.entry)
    data = gofmt()

    message = refusal(Elf("gofmt", data[:at] + b"\x06" * 4 + data[at + 4 :]))

    assert "no safe probe point in runtime.gopark: no instruction at +0x0" in message


# --- seven versions -----------------------------------------------------------------------------------------------


@pytest.mark.build
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("variant", list(VARIANTS))
def test_every_version_and_variant_has_a_plan(version: str, variant: str) -> None:
    path = probed(version, VARIANTS[variant])

    plan = plan_for(path, ["mutex", "calibration"])

    data = path.read_bytes()
    assert (plan.binary.go_version, plan.binary.pie, plan.binary.stripped) == (
        version,
        VARIANTS[variant].pie,
        VARIANTS[variant].stripped,
    )
    ids = [p.id for p in plan.probes]
    assert ids == [
        *("mutex.slow", "sem", "sem.rw_reader", "sem.rw_writer", "park", "execute"),
        *("cal.pp", "cal.entry", "cal.ret"),
    ]
    assert [m.id for m in plan.missing] == ["mark"]
    assert all(p.point == "pp" and data[p.offset] == PUSH_RBP for p in plan.probes[:7])
    assert data[plan.probes[-1].offset] == RET
    assert {o.source for o in plan.offsets.values()} == {"table" if VARIANTS[variant].stripped else "dwarf"}


@pytest.mark.build
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("pie", [False, True])
def test_a_stripped_program_has_the_same_plan(version: str, pie: bool) -> None:
    whole = plan_for(probed(version, Variant(pie=pie)), ["mutex", "calibration"])
    stripped = plan_for(probed(version, Variant(pie=pie, stripped=True)), ["mutex", "calibration"])

    assert [(p.id, p.address) for p in stripped.probes] == [(p.id, p.address) for p in whole.probes]
    assert {n: o.value for n, o in stripped.offsets.items()} == {n: o.value for n, o in whole.offsets.items()}
    assert stripped.reasons == whole.reasons


@pytest.mark.build
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("variant", [Variant(), Variant(pie=True), Variant(stripped=True, pie=True)])
def test_every_set_has_its_required_places_in_each_version(version: str, variant: Variant) -> None:
    sets = [name for name in SETS if name != "calibration"]

    plan = plan_for(probed(version, variant), sets)

    planned = {probe.id for probe in plan.probes}
    required = {hook.id for name in sets for hook in SETS[name].hooks if hook.required}
    lacking = {hook.id for name in sets for hook in SETS[name].hooks if hook.name(line_of(version)) is None}
    assert required - lacking <= planned
    assert not lacking & planned
    assert {"deferproc", "deferproc_stack", "close", "chan.select"} <= planned
    ranges = {"chansend", "chanrecv", "closechan", "selectgo", "sellock", "lock2", "mallocgc"}
    # Only the runtime's newer locks have unlock2Wake: its absence is how the older ones are known.
    assert set(plan.ranges) == (ranges | {"unlock2Wake"} if line_of(version) >= (1, 24) else ranges)
    # Every wait is recorded where one set asks for all; 0 is no reason.
    assert plan.recorded == list(range(1, len(plan.wait_reasons)))


@pytest.mark.build
@pytest.mark.parametrize("version", VERSIONS)
def test_lock_slow_moved_in_go_1_24(version: str) -> None:
    plan = plan_for(probed(version), ["mutex"])

    moved = tuple(int(part) for part in version.split(".")[:2]) >= (1, 24)
    expected = "internal/sync.(*Mutex).lockSlow" if moved else "sync.(*Mutex).lockSlow"
    assert plan.probes[0].symbol == expected


@pytest.mark.build
def test_the_plan_of_the_default_version_is_the_recorded_one() -> None:
    # A change here is a change of the plan's form, of the fixture, or of how workloads are built: look which.
    assert (
        plans.to_json(plan_for(probed(), ["mutex", "calibration"])) == (FIXTURES / f"plan-{DEFAULT}.json").read_bytes()
    )
