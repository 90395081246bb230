"""What becomes of evidence when its machine has ended."""

from __future__ import annotations

from pathlib import Path

import msgspec

from go_labs.evidence import Evidence
from provision import labrun
from tests.go_labs.recorded import provenance


def test_seconds_of_start_and_end_are_added_to_evidence_that_is_there(tmp_path: Path) -> None:
    made = Evidence(
        schema=1, lab="mutex", provenance=provenance(), phases=[], files={}, timings={"machine_seconds": 9.0}
    )
    (tmp_path / "evidence.json").write_bytes(msgspec.json.encode(made))

    labrun.add_timings(tmp_path, {"start_seconds": 26.1, "stop_seconds": 3.6})

    found = msgspec.json.decode((tmp_path / "evidence.json").read_bytes(), type=Evidence)
    assert found.timings == {"machine_seconds": 9.0, "start_seconds": 26.1, "stop_seconds": 3.6}
    assert msgspec.structs.replace(found, timings=made.timings) == made
    assert [path.name for path in tmp_path.iterdir()] == ["evidence.json"]


def test_provenance_of_before_there_was_vagrant_is_read_and_names_its_machine() -> None:
    old = msgspec.json.decode(msgspec.json.encode(provenance()))
    del old["provider_details"]

    assert msgspec.convert(old, type(provenance())).machine.startswith(f"{old['provider']}, QEMU ")
