"""A made-up run of the made-up lab in ``fixtures/lab``: everything that ``provision`` would have left, from a seed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from bpf.trace import EVENT
from go_labs import spec
from go_labs.evidence import (
    EVIDENCE_SCHEMA,
    Evidence,
    GoroutineIdentity,
    PhaseEvidence,
    Provenance,
    Segment,
    WorkloadOutput,
)

FIXTURES = Path(__file__).parent / "fixtures"
LAB = FIXTURES / "lab"
RECORDED = FIXTURES / "recorded-mutex-6.1.tar.xz"
SIZES = (4, 16, 64)
HASH = "5e" * 32


def folder() -> spec.LabFolder:
    return spec.load(LAB)


def provenance(**changes: Any) -> Provenance:
    made = Provenance(
        started="2026-11-23T12:00:00+00:00", finished="2026-11-23T12:00:41+00:00", kernel_line="6.1",
        kernel_release="6.1.0-56-cloud-amd64", kernel_version="6.1.150-1", cmdline="console=ttyS0 quiet",
        lock_digest=HASH, base_sha256=HASH, bundle_sha256=HASH, tools_sha256=HASH, provider="qemu",
        qemu_version="10.0.3", accelerator="tcg,thread=multi", cpu_model="max", machine_type="q35", cpus=2,
        memory_mib=1024, clock="emulated", clocksource="tsc", start="warm", go_version="go1.27.3", lab_sha256=HASH,
        binary_sha256=HASH, loader_sha256=HASH, objects_sha256=HASH, options={"sizes": "4,16,64"},
        host={"cpu": "a made-up CPU", "cpus": "2"}, seed=7, order=0, product_version="0.1.0",
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def free_segments(random: np.random.Generator, first: int) -> list[Segment]:
    segments: list[Segment] = []
    for lock, base in (("mutex", 95.0), ("rwmutex", 130.0)):
        for goroutines in (1, 4, 16):
            cost = base * (1 + 0.15 * np.log2(goroutines)) * random.lognormal(0, 0.05, 12)
            segments.append(
                Segment(
                    id=first + len(segments),
                    section="free",
                    parameters={"lock": lock, "goroutines": str(goroutines)},
                    start_ns=3_000_000_000 + len(segments) * 100_000_000,
                    end_ns=3_090_000_000 + len(segments) * 100_000_000,
                    counts={"operations": int(random.integers(10_000, 90_000))},
                    samples={
                        "ns_per_op": [float(v) for v in cost],
                        "acquired": [float(v) for v in random.integers(500, 3000, goroutines)],
                    },
                )
            )
    return segments


def forced_segments() -> list[Segment]:
    return [
        Segment(
            id=index + 1,
            section="forced",
            parameters={"goroutines": str(size)},
            start_ns=1_000_000_000 + index * 200_000_000,
            end_ns=1_150_000_000 + index * 200_000_000,
            counts={"waiters": size},
            expected={"slow": size, "park_mutex": size, "resumed": size},
        )
        for index, size in enumerate(SIZES)
    ]


def workload(segments: list[Segment]) -> WorkloadOutput:
    identity = GoroutineIdentity(goids=[18, 19, 20])
    return WorkloadOutput(schema=1, lab="queue", go="go1.27.3", gomaxprocs=2, self_test=identity, segments=segments)


STACK = [
    "sync.runtime_SemacquireMutex sema.go:95",
    "internal/sync.(*Mutex).lockSlow mutex.go:149",
    "main.main main.go:7",
]


def trace(segments: list[Segment], events: int) -> dict[str, Any]:
    counters: dict[str, dict[str, int]] = {
        str(segment.id): dict(segment.expected)
        or {"slow": 11_436, "sem": 317, "park_mutex": 271, "resumed": 271, "futex_wait": 32}
        for segment in segments
    }
    return {
        "schema": 2, "pid": 321, "exit_status": 0, "load_bias": 0, "threads": 5, "counters": counters,
        "losses": {"ring_full": 0, "map_full": 0, "stack_failed": 0, "expired": 0},
        "hits": {"mutex.slow": 11_436, "park": 355, "mark": 9},
        "programs": {"go_park": {"run_ns": 1234, "run_count": 5}},
        "cost": {"pp_ns": 3300.0, "entry_ns": 30000.0, "calls": 2000}, "self_test": {"goids": [20, 19, 18]},
        "stacks": [[4096, 8192, 12288], [4096, 12288]], "load_seconds": 0.2, "attach_seconds": 0.1,
        "calibrate_seconds": 0.3, "events": events,
    }  # fmt: skip


def go_trace(segment: int, counts: dict[str, Any]) -> bytes:
    """``go-trace.json`` with one segment."""
    told = {
        "entered": 1, "left": 1, "whole": True, "clock": "snapshot", "start_ns": 1_200_000_000, "end_ns": 1_350_000_000,
        "counts": counts, "procs": {"started": 2, "stopped": 1, "taken": 0}, "ranges": {}, "pauses": [],
        "pauses_left_out": 0, "goroutines": [], "goroutines_left_out": 0, "stretches": [], "stretches_left_out": 0,
    }  # fmt: skip
    return msgspec.json.encode({"schema": 1, "traces": [], "segments": {str(segment): told}})


def events(random: np.random.Generator, segments: list[Segment], count: int) -> bytes:
    made = np.zeros(count, dtype=EVENT)
    chosen = random.integers(0, len(segments), count)
    starts = np.array([segment.start_ns for segment in segments])[chosen]
    made["start_ns"] = starts + random.integers(0, 90_000_000, count)
    made["duration_ns"] = np.exp(random.normal(12.2, 1.9, count)).astype(np.uint64) + 400
    made["segment"] = np.array([segment.id for segment in segments])[chosen]
    made["stack"] = random.choice([0, 1, -1], count, p=[0.7, 0.28, 0.02])
    made["goid"] = random.integers(18, 90, count)
    made["kind"] = 1
    made["reason"] = 22
    return made.tobytes()


def staging(root: Path, *, seed: int = 1, count: int = 2000, stacks: list[str] | None = None, **changes: Any) -> Path:
    """Write a whole staging folder below ``root`` and return it; ``changes`` go to the provenance."""
    random = np.random.default_rng(seed)
    root.mkdir(parents=True)
    free, traced = free_segments(random, 1), [*forced_segments(), *free_segments(random, 10)]
    frames = stacks or STACK
    symbols = {str(4096 * (index + 1)): [frame] for index, frame in enumerate(frames)}
    write(root / "timed/workload.json", msgspec.json.encode(workload(free)))
    write(root / "traced/workload.json", msgspec.json.encode(workload(traced)))
    write(root / "traced/trace.json", json.dumps(trace(traced, count)).encode())
    write(root / "traced/events.bin", events(random, traced, count))
    write(root / "traced/symbols.json", json.dumps(symbols).encode())
    write(root / "kernel/workload.json", msgspec.json.encode(workload(free)))
    write(root / "kernel/tool-bcc-futex.json", b'{"calls": 32}')
    write(root / "console.log", b"Linux version 6.1.0-56-cloud-amd64\n")
    write(root / "kernel.log", b"[    0.000000] Linux version 6.1.0-56-cloud-amd64\n")
    roles = {"workload": "workload.json"}
    traces = roles | {"trace": "trace.json", "events": "events.bin", "symbols": "symbols.json"}
    evidence = Evidence(
        schema=EVIDENCE_SCHEMA,
        lab="queue",
        provenance=provenance(**changes),
        phases=[
            phase("timed", roles),
            phase("traced", traces),
            phase("kernel", roles | {"tool:bcc/futex": "tool-bcc-futex.json"}),
        ],
        files={"console": "console.log", "kernel_log": "kernel.log"},
        timings={"restore_seconds": 0.8, "push_seconds": 0.4},
    )
    write(root / "evidence.json", msgspec.json.encode(evidence))
    return root


def phase(name: str, roles: dict[str, str], error: str = "") -> PhaseEvidence:
    files = {role: f"{name}/{file}" for role, file in roles.items()}
    return PhaseEvidence(
        name=name, exit_status=1 if error else 0, wall_seconds=9.5, workload_seconds=3.1, files=files, error=error
    )


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def change(path: Path, edit: Any) -> None:
    """Read the JSON in ``path``, let ``edit`` change it, and write it back."""
    data = json.loads(path.read_bytes())
    edit(data)
    path.write_bytes(json.dumps(data).encode())


def unpack(root: Path) -> tuple[Path, spec.LabFolder]:
    """Return the staging folder of the recorded real run, and the lab as it was used."""
    shutil.unpack_archive(RECORDED, root)
    staging = root / "mutex-6.1"
    shutil.move(staging / "lab", root / "lab")
    return staging, spec.load(root / "lab")
