"""Whether two samples differ by more than chance: an exact permutation test of rank sums (Wilcoxon, Mann, Whitney).

Unpaired, though variants may share seeds: five pairs have 2^5 signs, so that the smallest two-sided p is 2/32 and
nothing could be found with five seeds. Five against five have 252 arrangements, the smallest p is 2/252, which leaves
room for Holm's correction. A seed fixes arrivals and choices, but not the machine's noise, so that pairs would gain
little; where they are alike, not to pair them errs towards "not distinguishable".

Ranks and not means: a run that never recovers has no time, but is worse than any that does; and one slow minute counts
no more than being last.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, comb
from statistics import NormalDist, fmean, variance

import numpy as np

LEVEL = 0.05
"""Two equal variants are told apart in at most so many tries."""

POWER = 0.8
"""How likely a difference as large as the one seen is found with the number of runs that `runs_to_tell` says."""

MOST_RUNS = 1000


def p_value(first: Sequence[float], second: Sequence[float]) -> float:
    """Two-sided and exact, whatever the number of values and ties: the share of all ways to deal the values out whose
    sum of ranks is as far from its mean as that of `first`, or further. 1 where a sample is empty."""
    size, total = len(first), len(first) + len(second)
    if not 0 < size < total:
        return 1.0
    ranks = _doubled_ranks([*first, *second])
    ways = np.zeros((size + 1, sum(ranks) + 1))
    ways[0, 0] = 1
    for rank in ranks:  # from the last row on, so that no value is dealt out twice
        for taken in range(size, 0, -1):
            ways[taken, rank:] += ways[taken - 1, : ways.shape[1] - rank]
    off = np.abs(np.arange(ways.shape[1]) - size * (total + 1))
    return float(ways[size, off >= off[sum(ranks[:size])]].sum() / ways[size].sum())


def _doubled_ranks(values: Sequence[float]) -> list[int]:
    """Equal values share the mean of their ranks, which is a half at least: twice that is a whole number."""
    sample = np.asarray(values)
    return [int((sample < value).sum() + (sample <= value).sum() + 1) for value in values]


def holm(p_values: Sequence[float]) -> list[float]:
    """Each p as it counts among all: below `LEVEL` at most once in 1 / LEVEL tries for all of them together.

    Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    adjusted = [1.0] * len(p_values)
    least = 0.0
    for done, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        least = max(least, min(1.0, (len(p_values) - done) * p_values[place]))
        adjusted[place] = least
    return adjusted


def runs_to_tell(first: Sequence[float], second: Sequence[float], comparisons: int) -> int | None:
    """How many runs of each would tell a difference as large as the one seen: by the normal approximation of the test
    (whose efficiency is 3/pi of the t test's), and no fewer than make the level reachable at all.

    None where that cannot be told: no difference seen, fewer than two runs, a run that never recovered, or more than
    `MOST_RUNS`.
    """
    if min(len(first), len(second)) < 2 or not np.isfinite([*first, *second]).all():
        return None
    gap = abs(fmean(first) - fmean(second))
    level = LEVEL / comparisons
    if gap == 0:
        return None
    normal = NormalDist()
    deviations = normal.inv_cdf(1 - level / 2) + normal.inv_cdf(POWER)
    noise = (variance(first) + variance(second)) * np.pi / 3
    wanted = deviations**2 * noise / gap**2
    if wanted > MOST_RUNS:
        return None
    return max(ceil(wanted), fewest_runs(comparisons))


def fewest_runs(comparisons: int) -> int:
    """With fewer runs of each no difference is found, however large."""
    return next(runs for runs in range(1, MOST_RUNS) if 2 / comb(2 * runs, runs) <= LEVEL / comparisons)
