"""Made-up matrices for tests, and short ways into their comparisons."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from go_labs import matrix
from reports import synthetic
from reports.comparison import Compared, Comparison, Effect, LabComparison
from reports.synthetic import Shape, lab_name

A, B, C, D = (lab_name(number) for number in range(4))
PLANTED = {(A, "6.12"): 1.06, (A, "6.18"): 1.06, (B, "7.3"): 1.08, (C, "6.1"): 0.9}
SHAPE = Shape(labs=4, blocks=10, ratios=PLANTED, judged=2, troubles=5, cut=True, seed=11)


def small(root: Path, **changes: Any) -> Path:
    """Write a small matrix without trouble, and return its folder."""
    shape: dict[str, Any] = {"labs": 1, "kernels": ("6.1", "6.12"), "blocks": 8, "noise": 0.005, "extra": 1}
    synthetic.write(root, Shape(**(shape | changes)))
    return root


def lab(comparison: Comparison, name: str = A) -> LabComparison:
    return next(each for each in comparison.labs if each.lab == name)


def primary(comparison: Comparison, name: str = A) -> Compared:
    made_of = lab(comparison, name).primary
    assert made_of is not None
    return made_of


def effects(comparison: Comparison, name: str = A) -> dict[str, Effect]:
    return {effect.kernel: effect for effect in primary(comparison, name).effects if not effect.control}


def records(folder: Path, line: str = "", cell: str = "") -> list[Path]:
    """``run.json`` of the records of a kernel, in the order in which they ran."""
    files = sorted((folder / "runs").glob(f"*-{line}-*/run.json" if line else "*/run.json"))
    return [file for file in files if not cell or json.loads(file.read_bytes())["provenance"]["place"]["cell"] == cell]


def baseline_cell(folder: Path) -> str:
    return matrix.read_plan(folder).baseline
