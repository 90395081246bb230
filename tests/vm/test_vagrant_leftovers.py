"""What is left of a machine of Vagrant's whose start failed, or whose starter died, and what is made of it."""

from __future__ import annotations

import pytest

from tests.vm.test_vagrant_provider import Bench, bench
from vm.errors import UsageError, VagrantError
from vm.registry import Process

__all__ = ["bench"]


def test_what_vagrant_never_made_is_not_destroyed(bench: Bench) -> None:
    bench.host.fails["up"] = bench.host.fails["destroy"] = "libvirtd does not run"

    with pytest.raises(VagrantError, match="libvirtd does not run"):
        bench.start(name="never")

    assert bench.commands() == ["up lab-6.1"]
    assert not [words for words in bench.said if "destroyed" in words]
    assert bench.provider.registry.all() == []


def test_a_persons_machine_whose_starter_died_is_taken_as_vagrant_made_it(bench: Bench, dead: Process) -> None:
    machine = bench.person()
    machine.update(ready=False, owner_process=dead)
    bench.commands()

    again = bench.provider.get("lab-6.1")

    assert again.registration.ready
    assert again.alive()
    assert bench.commands() == [], "it runs: nothing is brought up again"


def test_a_persons_machine_that_another_vagrant_makes_just_now_stays(bench: Bench) -> None:
    """`vagrant up lab-6.1` in one terminal, `invoke vm.up` in another: Vagrant's lock refuses the second one."""
    bench.host.fails["up"] = "vagrant up: another Vagrant process is at work on the machine"

    with pytest.raises(VagrantError, match="another Vagrant process"):
        bench.person()
    del bench.host.fails["up"]
    identity = bench.plain_up()
    bench.start()

    assert identity in bench.host.running
    assert not [words for words in bench.commands() if words.startswith("destroy")]
    assert bench.provider.find("lab-6.1") is None


def test_what_vagrant_has_of_a_person_s_machine_stays_where_its_starter_was_killed(bench: Bench, dead: Process) -> None:
    machine = bench.person()
    machine.update(ready=False, owner_process=dead)
    bench.commands()

    bench.start()

    assert machine.placed.uuid in bench.host.running
    assert bench.commands() == ["up lab-6.1"], "only the run's own machine"
    assert any("what Vagrant has of it stays" in words for words in bench.said)
    assert bench.provider.get("lab-6.1").alive()


def test_a_machine_that_somebody_starts_just_now_is_not_touched(bench: Bench) -> None:
    machine = bench.person()
    machine.update(ready=False)

    with pytest.raises(UsageError, match="is being started"):
        bench.provider.get("lab-6.1")
