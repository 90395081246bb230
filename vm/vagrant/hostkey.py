"""Which host key a machine of Vagrant's must show: from its console, else from itself.

The guest's init prints the key on the serial console at each boot, which nobody but the machine can write to. A machine
whose console is not kept (plain ``vagrant up``) is asked for its key over the network, as Vagrant itself trusts it.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from vm.deadline import Deadline
from vm.errors import MachineError, SetupError

MARK = "KMLAB-HOST-KEY "
"""How the line begins that the guest's init prints at each boot."""
_ON_CONSOLE = re.compile(r"KMLAB-HOST-KEY (ssh-ed25519 [A-Za-z0-9+/=]+)\s*$", re.MULTILINE)
_SCANNED = re.compile(r"^\S+ (ssh-ed25519 [A-Za-z0-9+/=]+)\s*$", re.MULTILINE)
PATIENCE_SECONDS = 5.0
"""How long a line that the guest has printed may take to the log."""


def on_console(log: Path) -> str:
    """Return the key that was printed last, ``ssh-ed25519 AAAA…``; empty where there is none or it cannot be read."""
    try:
        found = _ON_CONSOLE.findall(log.read_text("utf-8", "replace").replace("\r", ""))
    except OSError:
        return ""
    return str(found[-1]) if found else ""


def last_boot(log: Path) -> int:
    """Return where in the log what belongs to the last boot's work begins, in bytes: behind its host key."""
    try:
        data = log.read_bytes()
    except OSError:
        return 0
    at = data.rfind(MARK.encode())
    return at + len(MARK) if at >= 0 else 0


def wait_on_console(log: Path, deadline: Deadline) -> str:
    """Return the key as soon as it is in the log of a machine whose sshd answers; empty where it does not come."""
    patience = deadline.within(PATIENCE_SECONDS)
    while not (key := on_console(log)) and not patience.expired and _readable(log):
        time.sleep(0.05)
    return key


def ask(
    host: str, port: int, deadline: Deadline, run: Callable[..., subprocess.CompletedProcess[str]] | None = None
) -> str:
    """Ask a machine's sshd for its key.

    :raises SetupError: ssh-keyscan is not there. :raises MachineError: the machine does not tell.
    """
    seconds = max(1, min(10, int(deadline.remaining)))
    command = ["ssh-keyscan", "-T", str(seconds), "-t", "ed25519", "-p", str(port), host]
    try:
        done = (run or subprocess.run)(
            command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=seconds + 5
        )
    except FileNotFoundError as error:
        raise SetupError("ssh-keyscan is not installed", "sudo apt-get install openssh-client") from error
    except subprocess.TimeoutExpired as error:
        raise MachineError(f"the machine at {host}:{port} does not tell its host key") from error
    found = _SCANNED.search(done.stdout)
    if found is None:
        words = done.stderr.strip().splitlines()
        raise MachineError(
            f"the machine at {host}:{port} does not tell its host key: {words[-1] if words else 'no answer'}"
        )
    return found[1]


def _readable(log: Path) -> bool:
    try:
        with log.open("rb"):
            return True
    except OSError:
        return False
