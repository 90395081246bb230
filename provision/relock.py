"""``invoke kernels.lock``: resolve again, say what changes, write."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from vm import lock as locks
from vm.changes import Difference, difference
from vm.errors import ConfigError
from vm.kernels import read_configuration
from vm.model import Lock
from vm.paths import Layout


def resolve(only: Sequence[str], *, write: bool) -> Difference:
    """Resolve ``kernels.toml`` against the archive's signed indexes and return what differs from the lock there is.

    :param only: lines, ``tools`` or ``base``; empty means all.
    :param write: write the new lock, if it differs.
    :raises LabError: as :func:`vm.lock.make`.
    """
    old = _old(required=bool(only))
    new = locks.make(
        read_configuration(),
        Layout.from_environment(),
        old=old,
        only=only,
        note=lambda text: print(text, file=sys.stderr, flush=True),
    )
    found = difference(old, new)
    if write and found:
        locks.write(new)
    return found


def _old(*, required: bool) -> Lock | None:
    """Return the lock that is there; one that cannot be read is no hindrance to making it anew, all of it.

    :param required: whether a part of it is to be kept, so that it must be sound.
    """
    try:
        return locks.read()
    except ConfigError as error:
        if required:
            raise
        print(f"{error.message}: everything is resolved anew", file=sys.stderr)
        return None
