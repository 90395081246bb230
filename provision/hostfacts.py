"""What is known of the host that a run took place on: enough to tell hosts apart, nothing that names a person."""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path


def describe() -> dict[str, str]:
    """Return CPU model, number of CPUs this process may use, memory in MiB, kernel and distribution of the host."""
    return dict(_described())


@cache
def _described() -> dict[str, str]:
    # Once: a matrix moves its own threads between CPUs, and the host stays the same.
    release = platform.freedesktop_os_release() if Path("/etc/os-release").exists() else {}
    return {
        "cpu": _field(Path("/proc/cpuinfo"), "model name"),
        "cpus": str(len(os.sched_getaffinity(0))),
        "memory_mib": str(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20),
        "kernel": platform.release(),
        "system": release.get("PRETTY_NAME", platform.system()),
    }


def load() -> dict[str, float]:
    """Return the host's load averages and, where it tells, the share of time that something waited for a CPU.

    ``cpu_pressure_avg60`` is PSI's ``some avg60`` in percent (Documentation/accounting/psi.rst).
    """
    one, five, _ = os.getloadavg()
    facts = {"load1": one, "load5": five}
    pressure = Path("/proc/pressure/cpu")
    if pressure.exists():
        words = pressure.read_text().split()
        facts["cpu_pressure_avg60"] = float(next(w for w in words if w.startswith("avg60=")).removeprefix("avg60="))
    return facts


def available_mib() -> int:
    """Return MiB of memory that new programs can have without swapping (``MemAvailable``, proc_meminfo(5))."""
    return int(_field(Path("/proc/meminfo"), "MemAvailable").split()[0]) >> 10


def _field(file: Path, name: str) -> str:
    """Return the value of the first ``name : value`` line of ``file``, "" if there is none."""
    for line in file.read_text().splitlines():
        key, sign, value = line.partition(":")
        if sign and key.strip() == name:
            return value.strip()
    return ""
