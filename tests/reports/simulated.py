"""Made-up measurements with a known truth: logarithms of values, one for each trial, block and kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from reports.effects import p_values
from reports.statistics import Floats

TRIALS = 2_000
DRIFT, NOISE = 0.04, 0.02
DELTA = 0.05


def standard_error(rate: float, trials: int = TRIALS) -> float:
    """Standard error of a rate that was counted in ``trials``."""
    return float(np.sqrt(rate * (1 - rate) / trials))


def measured(
    random: np.random.Generator,
    blocks: int,
    ratios: Sequence[float],
    *,
    trials: int = TRIALS,
    noise: Callable[[tuple[int, ...]], Floats] | None = None,
) -> Floats:
    """Trials × blocks × kernels: each kernel by its ratio, a drift that each block has in common, noise of each run."""
    shape = (trials, blocks, len(ratios))
    drift = random.normal(0, DRIFT, (trials, blocks, 1))
    return np.asarray(drift + NOISE * (noise or random.standard_normal)(shape) + np.log(ratios))


def against_first(logs: Floats, delta: float = DELTA) -> tuple[Floats, Floats]:
    """P-values of difference and of equivalence, trials × kernels but the first, which is the baseline."""
    kernels = range(1, logs.shape[2])
    tested = [p_values(logs[:, :, kernel] - logs[:, :, 0], delta) for kernel in kernels]
    return np.stack([t.p for t in tested], 1), np.stack([np.maximum(t.p_lower, t.p_higher) for t in tested], 1)
