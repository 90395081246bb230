"""Flame graphs and comparisons of profiles, made from weighed stacks. Pure.

A stack is a tuple of functions, **outermost first**; :func:`functions_only` turns the frames of a trace round.
"""

from __future__ import annotations

import heapq
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping

from reports.chart_checks import DEPTH, NODES
from reports.charts import Flame, FlameDifference, FlameNode, FunctionDifference, FunctionShare, Place, Profile
from reports.statistics import share_distance
from reports.text import neutral

Stacks = Mapping[tuple[str, ...], float]
"""Functions from the outermost to the innermost → weight."""

LONGEST = 200
"""Characters of a function's name that are kept."""

ROWS = 15
"""Functions in the tables below a flame graph and of a comparison."""

NARROWEST = 1 / 2000
"""Share of the whole below which a function is narrower than half a pixel, and is folded."""

TIMES = frozenset({"ns", "µs", "ms", "s", "cycles"})
"""Units of a weight that depends on the machine's clock."""

_PLACE = re.compile(r" \S+:\d+$")
"""File and line behind a function, whose own name may hold blanks (``f[struct { x int }]``)."""


def flame(
    stacks: Stacks,
    *,
    name: str,
    title: str,
    caption: str,
    phase: str,
    unit: str,
    without: float = 0.0,
    place: Place = "stacks",
    limit: int = NODES,
    timing: bool | None = None,
) -> Flame | None:
    """Return the flame graph of ``stacks``, or None where nothing has a weight.

    The heaviest functions are kept; of each caller the others are folded into one node that says how many they were.

    :param without: weight of stacks that could not be read.
    :param timing: whether the weights depend on the machine's clock; by default where ``unit`` is one of :data:`TIMES`.
    :raises ValueError: a weight is negative.
    """
    tree = _tree(stacks)
    total = tree.value + without
    if tree.value <= 0:
        return None
    functions = shares(stacks)
    return Flame(
        id=name,
        title=title,
        caption=caption,
        place=place,
        phase=phase,
        timing=unit in TIMES if timing is None else timing,
        unit=unit,
        total=total,
        without=without,
        nodes=_kept(tree, total, limit),
        functions=functions[:ROWS],
        functions_omitted=max(0, len(functions) - ROWS),
    )


def shares(stacks: Stacks) -> list[FunctionShare]:
    """Return the weight of each function, heaviest by its own first.

    :raises ValueError: a weight is negative.
    """
    own: dict[str, float] = defaultdict(float)
    through: dict[str, float] = defaultdict(float)
    for frames, weight in stacks.items():
        if weight < 0:
            raise ValueError(f"a stack weighs {weight}")
        if not frames or not weight:
            continue
        own[frames[-1]] += weight
        for frame in set(frames):
            through[frame] += weight
    found = [FunctionShare(name=_short(f), self_value=own.get(f, 0.0), total=weight) for f, weight in through.items()]
    return sorted(found, key=lambda function: (-function.self_value, -function.total, function.name))


def difference(
    left: Stacks,
    right: Stacks,
    *,
    names: tuple[str, str],
    units: tuple[str, str],
    name: str,
    title: str,
    caption: str,
    phase: str,
    place: Place = "stacks",
    timing: bool = False,
) -> FlameDifference:
    """Return both profiles function by function, those whose own shares differ most or weigh most first.

    :param names: what took each profile.
    """
    totals = [sum(weight for frames, weight in stacks.items() if frames) for stacks in (left, right)]
    sides = [
        {function.name: (function.self_value / total, function.total / total) for function in shares(stacks)}
        for stacks, total in zip((left, right), totals, strict=True)
        if total
    ]
    if len(sides) < 2:
        sides = [{}, {}]
    nothing = (0.0, 0.0)
    rows = [
        FunctionDifference(
            name=function,
            left_self=sides[0].get(function, nothing)[0],
            right_self=sides[1].get(function, nothing)[0],
            left_total=min(1.0, sides[0].get(function, nothing)[1]),
            right_total=min(1.0, sides[1].get(function, nothing)[1]),
        )
        for function in dict.fromkeys([*sides[0], *sides[1]])
    ]
    rows.sort(key=lambda row: (-max(row.left_self, row.right_self), -max(row.left_total, row.right_total), row.name))
    return FlameDifference(
        id=name,
        title=title,
        caption=caption,
        place=place,
        phase=phase,
        timing=timing,
        left=Profile(name=names[0], unit=units[0], total=totals[0]),
        right=Profile(name=names[1], unit=units[1], total=totals[1]),
        distance=share_distance([row.left_self for row in rows], [row.right_self for row in rows]) if rows else None,
        functions=rows[:ROWS],
        functions_omitted=max(0, len(rows) - ROWS),
    )


def functions_only(frames: Iterable[str]) -> tuple[str, ...]:
    """Return frames ``function file:line``, innermost first, as functions, outermost first: a key of :data:`Stacks`."""
    return tuple(_PLACE.sub("", frame) for frame in frames)[::-1]


class _Node:
    __slots__ = ("children", "frame", "value")

    def __init__(self, frame: str) -> None:
        self.frame = frame
        self.value = 0.0
        self.children: dict[str, _Node] = {}

    def size(self) -> int:
        """Return the number of nodes below and with this one."""
        count, open_nodes = 0, [self]
        while open_nodes:
            node = open_nodes.pop()
            count += 1
            open_nodes += node.children.values()
        return count


def _tree(stacks: Stacks) -> _Node:
    root = _Node("")
    for frames, weight in stacks.items():
        if weight < 0:
            raise ValueError(f"a stack weighs {weight}")
        if not frames or not weight:
            continue
        node = root
        node.value += weight
        for frame in frames:
            node = node.children.setdefault(frame, _Node(frame))
            node.value += weight
    return root


def _kept(tree: _Node, total: float, limit: int) -> list[FlameNode]:
    """Return the heaviest nodes, callers first, and one node for what was folded below each; ``limit`` at most.

    A node never weighs more than its caller, so that taking the heaviest in turn takes callers first. How many folded
    nodes there will be is known only then: fewer are taken until all fit.
    """
    chosen = _heaviest(tree, total, limit)
    while True:
        nodes = _flat(tree, {id(node) for node in chosen})
        if len(nodes) <= limit:
            return nodes
        chosen = chosen[: len(chosen) - (len(nodes) - limit + 1) // 2]


def _heaviest(tree: _Node, total: float, limit: int) -> list[_Node]:
    chosen: list[_Node] = []
    count = 0
    heap: list[tuple[float, int, int, _Node]] = []

    def offer(nodes: Iterable[_Node], depth: int) -> None:
        nonlocal count
        for node in nodes:
            count += 1
            if node.value >= total * NARROWEST and depth < DEPTH - 1:  # the last row is left to what is folded
                heapq.heappush(heap, (-node.value, depth, count, node))

    offer(tree.children.values(), 0)
    while heap and len(chosen) < limit:
        _, depth, _, node = heapq.heappop(heap)
        chosen.append(node)
        offer(node.children.values(), depth + 1)
    return chosen


def _flat(tree: _Node, chosen: set[int]) -> list[FlameNode]:
    """Return the chosen nodes, siblings by name, each caller before what it calls."""
    nodes: list[FlameNode] = []
    stack: list[tuple[_Node, int]] = [(tree, -1)]
    while stack:
        node, index = stack.pop()
        if node is not tree:
            nodes.append(FlameNode(_short(node.frame), index, node.value))
            index = len(nodes) - 1
        kept = [child for child in node.children.values() if id(child) in chosen]
        folded = [child for child in node.children.values() if id(child) not in chosen]
        if folded:
            size = sum(child.size() for child in folded)
            nodes.append(FlameNode("other", index, sum(child.value for child in folded), size))
        stack += [(child, index) for child in sorted(kept, key=lambda child: child.frame, reverse=True)]
    return nodes


def _short(frame: str) -> str:
    return neutral(frame, LONGEST)
