"""Vagrant on real daemons: a box too small to boot goes through everything but a boot, and nothing of it is left."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from provision import doctor
from provision.checks.host import SYSTEM_PATH
from tests import vagrant_host as daemons
from tests.vagrant_host import VagrantHost
from vm.deadline import Deadline
from vm.errors import LabError, SetupError, VagrantError
from vm.paths import REPOSITORY, Layout
from vm.vagrant.client import InstalledBox, Vagrant
from vm.vagrant.versions import SOUND_QEMU, qemu_version

pytestmark = pytest.mark.vagrant

VAGRANTFILE = """
Vagrant.configure("2") do |config|
  ["one", "two"].each do |name|
    config.vm.define name do |machine|
      machine.vm.box = "kmlab/test-tiny"
      machine.vm.synced_folder ".", "/vagrant", disabled: true
      machine.vm.provider :libvirt do |libvirt|
        libvirt.default_prefix = "kmlab-test-PID-"
        libvirt.driver = "qemu"
        libvirt.cpu_mode = "custom"
        libvirt.cpu_model = "qemu64"
        libvirt.memory = 64
        libvirt.graphics_type = "none"
        libvirt.video_type = "none"
        libvirt.management_network_name = "default"
        libvirt.management_network_address = "ADDRESSES"
        libvirt.management_network_keep = true # without it, 'destroy' takes the network away from everyone
      end
    end
  end
end
"""
VERSION = "20260101.0.1"


def vagrantfile() -> str:
    return VAGRANTFILE.replace("PID", str(os.getpid())).replace("ADDRESSES", daemons.network_addresses())


def make_box(folder: Path) -> Path:
    """Make a box with an empty disk, and the metadata that name it."""
    folder /= "box"
    folder.mkdir()
    (folder / "metadata.json").write_text('{"provider": "libvirt", "format": "qcow2", "virtual_size": 1}')
    (folder / "Vagrantfile").write_text('Vagrant.configure("2") { |config| }\n')
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "box.img", "16M"], cwd=folder, check=True)
    subprocess.run(["tar", "-czf", "tiny.box", "metadata.json", "Vagrantfile", "box.img"], cwd=folder, check=True)
    provider = {"name": "libvirt", "url": (folder / "tiny.box").as_uri()}
    described = {"name": "kmlab/test-tiny", "versions": [{"version": VERSION, "providers": [provider]}]}
    metadata = folder / "tiny.json"
    metadata.write_bytes(msgspec.json.encode(described))
    return metadata


@pytest.fixture
def vagrant(vagrant_host: VagrantHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Vagrant]:
    monkeypatch.setenv("VAGRANT_HOME", str(vagrant_host.home))
    (tmp_path / "Vagrantfile").write_text(vagrantfile())
    client = Vagrant(tmp_path / "data", tmp_path / "vagrant.log", checkout=tmp_path)
    yield client
    for machine in ("one", "two"):
        client.destroy(machine, soon())


def soon() -> Deadline:
    return Deadline.after(180)


def domain(machine: str) -> str:
    return f"kmlab-test-{os.getpid()}-{machine}"


def interrupt(client: Vagrant, machine: str, reached: Callable[[], bool]) -> None:
    """Start a machine that never comes up, and interrupt that when it is so far."""
    ended: list[LabError] = []

    def up() -> None:
        try:
            client.up(machine, soon())
        except LabError as error:
            ended.append(error)

    thread = threading.Thread(target=up)
    thread.start()
    limit = Deadline.after(120)
    while thread.is_alive() and not limit.expired and not reached():
        time.sleep(0.1)
    in_time = thread.is_alive() and not limit.expired
    client.interrupt()
    thread.join()
    assert in_time, ended
    assert [type(error) for error in ended] == [VagrantError]
    assert "was ended by signal" in ended[0].message


def test_a_machine_is_made_asked_snapshot_and_destroyed(vagrant: Vagrant, tmp_path: Path) -> None:
    assert vagrant.states(soon()) == {"one": "not_created", "two": "not_created"}
    with pytest.raises(SetupError, match="the box kmlab/test-tiny is not added"):
        vagrant.up("one", soon())

    metadata = make_box(tmp_path)
    vagrant.box_add(metadata, "libvirt", soon(), force=False)
    with pytest.raises(VagrantError, match="added already"):
        vagrant.box_add(metadata, "libvirt", soon(), force=False)
    vagrant.box_add(metadata, "libvirt", soon(), force=True)
    assert InstalledBox("kmlab/test-tiny", "libvirt", VERSION) in vagrant.boxes(soon())

    interrupt(vagrant, "one", lambda: daemons.virsh("domstate", domain("one")).stdout.strip() == "running")
    assert domain("one") in daemons.inventory().domains
    assert vagrant.state("one", soon()) == "inaccessible"

    vagrant.snapshot_save("one", "first one", soon())
    assert vagrant.snapshots("one", soon()) == ["first one"]
    assert vagrant.snapshots("two", soon()) == []

    vagrant.destroy("one", soon())
    assert vagrant.state("one", soon()) == "not_created"
    assert domain("one") not in daemons.inventory().domains
    assert "default" in daemons.names("net-list", "--name")
    vagrant.box_remove("kmlab/test-tiny", "libvirt", VERSION, soon())
    assert vagrant.boxes(soon()) == []


def test_the_doctor_finds_nothing_to_mend_here(vagrant_host: VagrantHost) -> None:
    assert vagrant_host.home.parent.is_dir()
    layout = Layout.from_environment()
    findings = [row for row in doctor.examine(layout=layout) if "agrant" in row.check or "libvirt" in row.check]

    assert len(findings) == 7
    # Debian 12 without its backports: that its QEMU is not sound is what the doctor has to say there.
    old = int(qemu_version(layout).partition(".")[0]) < SOUND_QEMU
    assert {row.check for row in findings if row.result != "ok"} <= ({"QEMU of libvirt"} if old else set()), findings


def test_nothing_is_left_of_what_was_made(vagrant_host: VagrantHost, tmp_path: Path) -> None:
    """A session of its own, killed in the middle of a start: what it leaves is removed by the fixture's own means."""
    assert vagrant_host.home.parent.is_dir()
    before = daemons.inventory()
    (tmp_path / "Vagrantfile").write_text(vagrantfile())
    metadata = make_box(tmp_path)
    program = f"""
import os
from pathlib import Path
from tests.test_vagrant_host import interrupt
from tests.vagrant_host import hosting, names
from vm.deadline import Deadline
from vm.vagrant.client import Vagrant
folder = Path({str(tmp_path)!r})
with hosting(folder) as host:
    os.environ["VAGRANT_HOME"] = str(host.home)
    vagrant = Vagrant(folder / "data", folder / "log", checkout=folder)
    vagrant.box_add(Path({str(metadata)!r}), "libvirt", Deadline.after(120), force=True)
    interrupt(vagrant, "two", lambda: {domain("two")!r} in names("list", "--all", "--name"))
    print("interrupted", flush=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=180
    )

    assert (done.stdout, done.returncode) == ("interrupted\n", 0), done.stderr
    assert not (tmp_path / "vagrant-home").exists(), "its boxes"
    after = daemons.inventory()
    # A libvirtd that systemd starts at need may have been ended and started meanwhile.
    assert replace(after, processes=before.processes) == before
    assert {words for _, words in after.processes if domain("two") in words} == set()


def test_daemons_of_ones_own_leave_no_trace(tmp_path: Path) -> None:
    """In name spaces of its own, where no libvirtd runs: up and down, and all is as it was."""
    if shutil.which("libvirtd", path=f"{os.environ['PATH']}:{SYSTEM_PATH}") is None:
        pytest.skip("no Vagrant here: no libvirtd")
    root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if root and (shutil.which("sudo") is None or subprocess.run([*root, "true"], check=False).returncode != 0):
        pytest.skip("nobody here may become root, who alone may make name spaces for a second libvirtd")
    script = f"""
set -e
mount --make-rprivate /
mount -t tmpfs none /run
mount -t tmpfs none /var/lib
cd {REPOSITORY}
umask 077
{sys.executable} -B - <<'PROGRAM'
from pathlib import Path
from tests import vagrant_host as host
from vm.registry import Process
import subprocess
bare = host.inventory()
assert not any((bare.domains, bare.volumes, bare.networks, bare.pools, bare.processes, bare.bridges)), bare
assert not host.answers(), "a libvirtd answers"
with host.hosting(Path({str(tmp_path)!r})) as started:
    assert started.started
    during = host.inventory()
    assert during.networks == {{"default"}}, during
    assert during.bridges == {{"virbr0"}}, during
    assert len(during.processes) == 4, during  # dnsmasq is two
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    seen = subprocess.run([*nobody, "cat", host.STATE / "host.json"], capture_output=True, check=True)
    assert seen.stdout == (host.STATE / "host.json").read_bytes(), "others must see whose these daemons are"
    assert not host.up(None), "a second start must find the first"
assert host.inventory() == bare, host.inventory()

child = subprocess.Popen(["sleep", "60"])
owner = Process.of(child.pid)
assert host.up(owner)
child.kill()
child.wait()
with host.hosting(Path({str(tmp_path)!r})) as started:
    assert started.started, "daemons whose owner is dead are to be taken over"
assert host.inventory() == bare, host.inventory()
assert not host.STATE.exists()
PROGRAM
"""
    etc = sorted(Path("/etc/libvirt").rglob("*"))

    done = subprocess.run(
        [*root, "unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "sh", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(Path("/etc/libvirt").rglob("*")) == etc
