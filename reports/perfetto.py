"""Full timelines as Perfetto's binary trace, for its viewer. Pure.

Tracks: one for each P and each M with what ran there, and one for each group of goroutines with what happened to them.
Times are CLOCK_MONOTONIC of the machine. The format is ``perfetto/trace/perfetto_trace.proto`` of the Perfetto project,
written with the project's own Python package; names are interned, so that each stands in the file once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Literal

import numpy as np
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import (  # type: ignore[import-untyped]
    TracePacket,
    TrackDescriptor,
    TrackEvent,
)
from perfetto.trace_builder.proto_builder import StreamingTraceProtoBuilder  # type: ignore[import-untyped]

from reports.text import neutral
from reports.timeline import PROCESSORS, THREADS, FullTimeline, Ints, cut

OTHERS = "goroutines"
"""Group of goroutines that belong to none."""

MAXIMUM = 100_000
"""Runs, and instants, that are written; the earliest. As many are written in a few seconds."""

_SEQUENCE = 1

_Table = Literal["event_names", "debug_annotation_names", "debug_annotation_string_values"]
"""Tables of interned words (``InternedData``)."""


@dataclass(frozen=True, slots=True)
class Written:
    """A trace, and what is in it.

    :param slices: on P tracks and M tracks together; a run with a known P has one on each.
    :param overlapping: slices that were cut where the next one on their track began.
    :param omitted: runs and instants beyond :data:`MAXIMUM`.
    """

    data: bytes
    slices: int
    instants: int
    overlapping: int
    omitted: int


def encode(full: FullTimeline) -> Written:
    """Return ``full`` as the bytes of a trace."""
    writer = _Writer()
    runs = full.runs
    order = np.argsort(runs.start_ns, kind="stable")
    omitted = max(0, order.size - MAXIMUM)
    order = order[:MAXIMUM]
    for group, letter, keys in ((PROCESSORS, "P", runs.proc), (THREADS, "M", runs.tid)):
        parent = writer.track(group)
        for key in np.unique(keys[order]).tolist():
            if key >= 0:
                writer.lane(full, writer.track(f"{letter} {key}", parent, key), order[keys[order] == key])
    if full.instants is not None:
        omitted += writer.happened(full)
    return Written(writer.file.getvalue(), writer.slices, writer.instants, writer.overlapping, omitted)


@dataclass(slots=True)
class _Writer:
    file: BytesIO = field(default_factory=BytesIO)
    numbers: dict[tuple[_Table, str], int] = field(default_factory=dict)
    tracks: int = 0
    slices: int = 0
    instants: int = 0
    overlapping: int = 0
    builder: StreamingTraceProtoBuilder = field(init=False)

    def __post_init__(self) -> None:
        self.builder = StreamingTraceProtoBuilder(self.file)
        self._write(self._packet(TracePacket.SEQ_INCREMENTAL_STATE_CLEARED))

    def _packet(self, flags: int = TracePacket.SEQ_NEEDS_INCREMENTAL_STATE) -> TracePacket:
        packet = self.builder.create_packet()
        packet.trusted_packet_sequence_id = _SEQUENCE
        packet.sequence_flags = flags
        return packet

    def _write(self, packet: TracePacket) -> None:
        self.builder.write_packet(packet)

    def track(self, name: str, parent: int = 0, rank: int = 0) -> int:
        """Describe a track, below ``parent`` and there in order of ``rank``, and return its id."""
        self.tracks += 1
        packet = self._packet()
        packet.track_descriptor.uuid = self.tracks
        packet.track_descriptor.name = neutral(name)
        packet.track_descriptor.child_ordering = TrackDescriptor.EXPLICIT
        if parent:
            packet.track_descriptor.parent_uuid = parent
            packet.track_descriptor.sibling_order_rank = rank
        self._write(packet)
        return self.tracks

    def _number(self, packet: TracePacket, table: _Table, words: str) -> int:
        """Return the number of ``words`` in ``table``, where ``packet`` introduces them if they are new."""
        number = self.numbers.get((table, words))
        if number is None:
            number = self.numbers[table, words] = len(self.numbers) + 1
            entry = getattr(packet.interned_data, table).add()
            entry.iid = number
            if table == "debug_annotation_string_values":
                entry.str = neutral(words).encode()
            else:
                entry.name = neutral(words)
        return number

    def _annotate(self, packet: TracePacket, name: str, value: int | str) -> None:
        annotation = packet.track_event.debug_annotations.add()
        annotation.name_iid = self._number(packet, "debug_annotation_names", name)
        if isinstance(value, int):
            annotation.int_value = value
        else:
            annotation.string_value_iid = self._number(packet, "debug_annotation_string_values", value)

    def lane(self, full: FullTimeline, track: int, mine: Ints) -> None:
        """Write the runs ``mine``, ascending by start, as slices of ``track``."""
        runs = full.runs
        starts = runs.start_ns[mine].astype(np.int64)
        ends, late = cut(starts, runs.end_ns[mine].astype(np.int64))
        self.overlapping += late
        columns = (starts, ends, runs.goid[mine], runs.tid[mine], runs.proc[mine], runs.reason[mine])
        for start, end, goid, tid, proc, reason in zip(*(column.tolist() for column in columns), strict=True):
            packet = self._packet()
            packet.timestamp = start
            event = packet.track_event
            event.type, event.track_uuid = TrackEvent.TYPE_SLICE_BEGIN, track
            event.name_iid = self._number(packet, "event_names", f"G {goid}")
            self._annotate(packet, "M", tid)
            self._annotate(packet, "P", proc if proc >= 0 else "not known")
            self._annotate(packet, "ended by", runs.reasons[reason] if reason >= 0 else "not known")
            if goid in full.groups:
                self._annotate(packet, "group", full.groups[goid])
            self._write(packet)
            packet = self._packet()
            packet.timestamp = end
            packet.track_event.type, packet.track_event.track_uuid = TrackEvent.TYPE_SLICE_END, track
            self._write(packet)
            self.slices += 1

    def stretch(self, track: int, stretch: Stretch) -> None:
        """Write a slice of ``track``."""
        packet = self._packet()
        packet.timestamp = stretch.start_ns
        packet.track_event.type, packet.track_event.track_uuid = TrackEvent.TYPE_SLICE_BEGIN, track
        packet.track_event.name_iid = self._number(packet, "event_names", stretch.name)
        for name, value in stretch.told.items():
            self._annotate(packet, name, value)
        self._write(packet)
        packet = self._packet()
        packet.timestamp = stretch.end_ns
        packet.track_event.type, packet.track_event.track_uuid = TrackEvent.TYPE_SLICE_END, track
        self._write(packet)
        self.slices += 1

    def happened(self, full: FullTimeline) -> int:
        """Write instants, on a track for each group of goroutines, and return how many were left out."""
        instants = full.instants
        if instants is None:
            return 0
        order = np.argsort(instants.time_ns, kind="stable")
        kept = order[:MAXIMUM]
        groups = {int(goid): full.groups.get(int(goid), OTHERS) for goid in np.unique(instants.goid[kept])}
        root = self.track("Groups of goroutines")
        tracks = {name: self.track(name, root, rank) for rank, name in enumerate(sorted(set(groups.values())))}
        columns = (instants.time_ns, instants.goid, instants.kind, instants.detail)
        for time, goid, kind, detail in zip(*(column[kept].tolist() for column in columns), strict=True):
            packet = self._packet()
            packet.timestamp = time
            event = packet.track_event
            event.type, event.track_uuid = TrackEvent.TYPE_INSTANT, tracks[groups[goid]]
            name = f"{instants.kinds[kind]}: {instants.details[detail]}" if detail >= 0 else instants.kinds[kind]
            event.name_iid = self._number(packet, "event_names", name)
            self._annotate(packet, "goroutine", goid)
            self._write(packet)
            self.instants += 1
        return int(order.size - kept.size)


# ---- timelines of something else than goroutines ----


@dataclass(frozen=True, slots=True)
class Stretch:
    """A named slice; ``told`` is shown beside it in the viewer."""

    name: str
    start_ns: int
    end_ns: int
    told: Mapping[str, int | str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Lane:
    """A track of ``group`` with slices that do not overlap, ascending by start."""

    group: str
    name: str
    stretches: Sequence[Stretch]


def encode_lanes(lanes: Sequence[Lane]) -> bytes:
    """Return ``lanes``, in their order, as the bytes of a trace; it is meant for :data:`MAXIMUM` slices at most."""
    writer = _Writer()
    groups: dict[str, int] = {}
    for rank, lane in enumerate(lanes):
        if lane.group not in groups:
            groups[lane.group] = writer.track(lane.group)
        track = writer.track(lane.name, groups[lane.group], rank)
        for stretch in lane.stretches:
            writer.stretch(track, stretch)
    return writer.file.getvalue()
