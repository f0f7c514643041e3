"""Requests over time as they finish: bins that never become many, with latencies to 2 %."""

from __future__ import annotations

import numpy as np

from testbed.results.show.html.counted import BIN_WIDTHS_S, BINS, Bin, Course
from testbed.results.tables.columns import Codes, Floats

_PER_DECADE = 60
_LOWEST_MS = 1e-2
_BUCKETS = 8 * _PER_DECADE
"""Of latencies: each is 4 % wide, and stands for its middle."""


class CourseSoFar:
    """Bins as in the report of a run that lasts `expected_s`; should it last longer, two become one, and so on."""

    def __init__(self, expected_s: float) -> None:
        fits = (width for width in BIN_WIDTHS_S if expected_s <= width * BINS)
        self.width_s = next(fits, BIN_WIDTHS_S[0] if np.isinf(expected_s) else expected_s / BINS)
        self._outcomes = np.zeros((BINS, 3), dtype=np.int64)
        self._latencies = np.zeros((BINS, _BUCKETS), dtype=np.int64)

    def add(self, intended_s: Floats, outcome: Codes, latency_ms: Floats) -> None:
        """Outcomes by their number in `OUTCOMES`: ok, failed, unknown."""
        if not len(intended_s):
            return
        while float(intended_s.max()) >= self.width_s * BINS:
            self._halve()
        bins = np.clip((intended_s / self.width_s).astype(np.int64), 0, BINS - 1)
        np.add.at(self._outcomes, (bins, outcome), 1)
        ok = outcome == 0
        with np.errstate(divide="ignore"):
            found = np.log10(latency_ms[ok] / _LOWEST_MS) * _PER_DECADE
        np.add.at(self._latencies, (bins[ok], np.clip(found, 0, _BUCKETS - 1).astype(np.int64)), 1)

    def course(self, until_s: float) -> Course:
        """Of what has finished of the requests before then."""
        number = min(BINS, int(until_s / self.width_s) + 1) if until_s > 0 else 0
        p50_ms, p99_ms = (_quantile_ms(self._latencies[:number], share) for share in (0.5, 0.99))
        bins = [
            Bin(index * self.width_s, ok + failed + unknown, ok, failed, unknown, p50_ms[index], p99_ms[index])
            for index, (ok, failed, unknown) in enumerate(self._outcomes[:number].tolist())
        ]
        return Course(self.width_s, tuple(bins))

    def latencies_ms(self, from_s: float) -> tuple[float | None, float | None]:
        """p50 and p99 of the ok requests since then."""
        recent = self._latencies[int(max(0.0, from_s) / self.width_s) :].sum(axis=0, keepdims=True)
        return _quantile_ms(recent, 0.5)[0], _quantile_ms(recent, 0.99)[0]

    def _halve(self) -> None:
        self.width_s *= 2
        for counts in (self._outcomes, self._latencies):
            counts[: BINS // 2] = counts[0::2] + counts[1::2]
            counts[BINS // 2 :] = 0


def _quantile_ms(buckets: Codes, share: float) -> list[float | None]:
    """Of every row; None where there is nothing in it."""
    upto = np.cumsum(buckets, axis=1)
    total = upto[:, -1:]
    found = (upto < np.maximum(total * share, 1)).sum(axis=1)
    middle_ms = _LOWEST_MS * 10 ** ((found + 0.5) / _PER_DECADE)
    return [float(ms) if number else None for ms, number in zip(middle_ms, total[:, 0].tolist(), strict=True)]
