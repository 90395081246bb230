"""What a run leaves before anyone judges it: the data between the machine (``provision``) and the reader (``reports``).

``provision`` writes ``evidence.json`` and the files it names into a staging folder; ``reports`` reads that folder, adds
metrics, gates and verdicts, writes ``run.json`` and renames the folder to its final name. Both see only these structs.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

EVIDENCE_SCHEMA = 1
"""Version of the shape below."""


class Histogram(msgspec.Struct, frozen=True, kw_only=True):
    """Counts by log-linear bucket (``labkit.Histogram``); ``reports.histograms`` reads, merges and draws them.

    :param bits: each power of two has ``2**bits`` buckets, values below ``2**bits`` have one each.
    :param counts: number of the bucket → how many values; buckets without are left out.
    """

    bits: int
    counts: dict[int, int]


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """One stretch of a workload under fixed parameters. The probes know it by ``id`` (see ``labkit.Mark``).

    :param id: 1 to 511; 0 is everything outside a segment.
    :param section: ``forced``, ``free``, or one that the lab defines.
    :param parameters: what was fixed: ``{"lock": "rwmutex", "goroutines": "16", "readers": "70"}``.
    :param start_ns: and ``end_ns``: CLOCK_MONOTONIC of the machine.
    :param counts: what the workload itself counted; in a forced section, what must come out of the trace under the key
        of the same name in ``expected``.
    :param expected: forced section: exact number of each traced event, by counter name.
    :param samples: figures with units in their name (``ns_per_op``), in the order they were taken.
    :param addresses: objects of interest (``{"mutex": 824633827328}``).
    :param goroutines: ids of goroutines of interest, by what they are (``{"leaked": [35, 36]}``).
    :param histograms: figures of which there are many, by name with unit (``latency_ns``).
    """

    id: int
    section: str
    parameters: dict[str, str] = {}
    start_ns: int
    end_ns: int
    counts: dict[str, int] = {}
    expected: dict[str, int] = {}
    samples: dict[str, list[float]] = {}
    addresses: dict[str, int] = {}
    goroutines: dict[str, list[int]] = {}
    histograms: dict[str, Histogram] = {}


class GoroutineIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """Self-test of the goid offset: the id that a goroutine read from its own stack header."""

    goids: list[int]


class WorkloadOutput(msgspec.Struct, frozen=True, kw_only=True):
    """The one JSON document that a workload prints on stdout. Untrusted.

    :param lab: name of the lab. :param go: ``runtime.Version()``.
    :param self_test: ids of the goroutines that took part in the goid self-test, in segment ``self-test``.
    :param metrics: runtime/metrics and others at the end, by name.
    :param profile: mutex profile in the profiled phase: stacks (outermost last) with counts and delay.
    :param heap: heap profile by segment, where the lab asks for it (``labkit.Run.ProfileHeap``); ``heap_left_out``
        entries were too many.
    """

    schema: Literal[1]
    lab: str
    go: str
    gomaxprocs: int
    self_test: GoroutineIdentity
    segments: list[Segment]
    metrics: dict[str, float] = {}
    profile: list[ProfileEntry] = []
    heap: list[HeapEntry] = []
    heap_left_out: int = 0


class ProfileEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One stack of Go's own mutex profile: ``count`` contentions, ``delay_ns`` waited, frames innermost first."""

    count: int
    delay_ns: int
    frames: list[str]


class HeapEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One stack of Go's own heap profile: ``count`` objects allocated in ``segment``, frames innermost first.

    ``bytes`` are those of the size classes, which the profile counts, and not what was asked for.
    """

    segment: int
    count: int
    bytes: int
    frames: list[str]


class HostShare(msgspec.Struct, frozen=True, kw_only=True):
    """How a machine fared on its host during a phase.

    :param cores: numbers of the host's CPUs that it could use.
    :param neighbours: most machines of the same matrix that could use one of these at the same time; 0 where it had
        them to itself as far as the matrix is concerned.
    :param cpu_seconds: that the threads of its CPUs ran; ``wait_seconds``: that they were ready to run and had no CPU
        (fields 1 and 2 of ``/proc/PID/task/TID/schedstat``, Documentation/scheduler/sched-stats.rst), all together.
    """

    cores: list[int]
    neighbours: int
    cpu_seconds: float
    wait_seconds: float


class PhaseEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """What one phase left.

    :param files: role → file name in the staging folder: ``workload`` (WorkloadOutput), ``trace`` (trace.json of the
        loader), ``events`` (events.bin), ``plan``, ``stderr``, ``tool:NAME`` (JSON of a kernel-side tool), ``go_trace``
        (go-trace.json, the summary of recordings of runtime/trace).
    :param go_traces_dropped: recordings of runtime/trace that were summarised and then dropped, because of their size.
    :param wall_seconds: of the host, for the whole phase; ``workload_seconds``: of the workload alone, guest time.
    :param error: why the phase has no result, where it has none; ``failed`` says what failed: the ``workload``, its
        ``output``, a ``probe`` (or the tracer), or the ``tools``.
    :param protocol: ``none`` where the program was no workload: its output is kept under role ``stdout``.
    :param remarks: what else a reader should know, a sentence each: processes that outlived the workload, a reset.
    :param refused: whether the kernel refused a program or a probe; ``timed_out``: whether it was not over in time.
    :param host: None where the machine's process is not this program's to look at.
    """

    name: str
    exit_status: int | None
    wall_seconds: float
    workload_seconds: float
    files: dict[str, str]
    error: str = ""
    failed: Literal["", "workload", "output", "probe", "tools"] = ""
    protocol: Literal["document", "none"] = "document"
    remarks: list[str] = []
    go_traces_dropped: int = 0
    refused: bool = False
    timed_out: bool = False
    host: HostShare | None = None


class AttemptResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one attempt of ``lab.toml``.

    :param done: whether it was possible.
    :param words: of whoever refused it (kernel, bpftool, the workload's function table), or what bpftool printed.
        Untrusted.
    :param facts: what stands beside it: ``errno``, ``symbols`` looked through, ``fields`` that are there.
    :param untried: why it could not be tried; ``done`` then says nothing.
    """

    id: str
    what: str
    done: bool
    words: str = ""
    facts: dict[str, int | str | list[str]] = {}
    untried: str = ""


class Attempts(msgspec.Struct, frozen=True, kw_only=True):
    """``attempts.json``: the attempts of a run, in the order of ``lab.toml``."""

    schema: Literal[1]
    attempts: list[AttemptResult]


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where in a matrix a run belongs (``go_labs.matrix``)."""

    matrix: str
    run: int
    block: int
    cell: str
    attempt: int


class Provenance(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run came from: enough to make it again, and to know what it may be compared with.

    :param build: how the workload was linked: ``plain``, ``stripped``, ``pie`` or ``stripped,pie``.
    :param place: None for a run of its own.
    :param provider_details: what else there is to say of the provider: its version, and what starts machines for it.
    """

    started: str
    finished: str
    kernel_line: str
    kernel_release: str
    kernel_version: str
    cmdline: str
    lock_digest: str
    base_sha256: str
    bundle_sha256: str
    tools_sha256: str
    provider: str
    qemu_version: str
    accelerator: str
    cpu_model: str
    machine_type: str
    cpus: int
    memory_mib: int
    clock: Literal["kvm", "emulated", "virtual"]
    clocksource: str
    start: Literal["warm", "cold"]
    go_version: str
    lab_sha256: str
    binary_sha256: str
    loader_sha256: str
    objects_sha256: str
    options: dict[str, str]
    host: dict[str, str]
    seed: int
    order: int
    product_version: str
    build: str = "plain"
    place: Place | None = None
    provider_details: str = ""

    @property
    def machine(self) -> str:
        """What ran the machine, in words."""
        provider = f"{self.provider} ({self.provider_details})" if self.provider_details else self.provider
        return f"{provider}, QEMU {self.qemu_version}"


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """An exact count of a forced section that the trace does not have; ``traced`` None where nothing was traced."""

    segment: int
    parameters: dict[str, str]
    counter: str
    expected: int
    traced: int | None


class ForcedCheck(msgspec.Struct, frozen=True, kw_only=True):
    """What the forced sections of one run came to: the judge's (``reports``) word to the self-test (``provision``).

    :param checked: exact counts that were held against the trace. :param goids: ids that goroutine and probe agree on;
        ``goids_wrong``: ids that only one of them has.
    :param lost: counts that the trace lost. :param errors: phases that have no whole result, with why.
    """

    checked: int
    differences: list[Difference]
    goids: int
    goids_wrong: int
    lost: int
    errors: list[str]

    @property
    def exact(self) -> bool:
        """Whether there was something to check, and all of it agrees."""
        whole = self.checked > 0 and self.goids > 0 and not self.errors
        return whole and not self.differences and self.goids_wrong == 0 and self.lost == 0


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """``evidence.json``.

    :param files: role → file name, of what belongs to no phase: ``plan``, ``console``, ``kernel_log``, ``attempts``
        (:class:`Attempts`; absent where the lab has none, or the machine was lost before).
    """

    schema: int
    lab: str
    provenance: Provenance
    phases: list[PhaseEvidence]
    files: dict[str, str]
    timings: dict[str, float]
    facts: dict[str, Any] = {}
