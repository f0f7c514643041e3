"""What the clock of another machine shows, estimated from questions and answers.

Owns the estimate and its error. Asking is the network's part; here is no clock, only readings of two.

Cristian's algorithm (1989) bounds one reading: the answer was given between sending and receiving, so the middle is
wrong by half the round trip at most. NTP's clock filter (RFC 5905, section 10) trusts the reading with the shortest
round trip of several, as the others waited somewhere; the line through these is Theil-Sen's, the median of slopes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from testbed.results.tables.columns import Codes, Floats

_WINDOW_S = 5.0
_DRIFT_SPAN_S = 20.0
"""Round trips of a millisecond over less than this would say more about luck than about drift."""
_SLOW = 2.0
"""Times the usual shortest round trip: a window with no better reading would only widen the error."""
_DRIFT_MAX = 200e-6
"""Two quartz clocks, each wrong by 100 ppm: what is assumed where drift is not measured."""


class Reading(Protocol):
    """An answer: sent and received in local monotonic seconds, the remote clocks in between."""

    @property
    def sent_s(self) -> float: ...
    @property
    def remote_monotonic_s(self) -> float: ...
    @property
    def remote_epoch_s(self) -> float: ...
    @property
    def received_s(self) -> float: ...


@dataclass(frozen=True, slots=True)
class ClockEstimate:
    """remote monotonic = local monotonic + `offset_s` + `drift` * (local monotonic - `at_s`).

    From the first reading to the last this is wrong by `error_s` at most, if the drift is constant; what it is not
    shows as residual, which `error_s` includes. `epoch_minus_monotonic_s` is between the remote machine's own clocks.
    """

    offset_s: float
    drift: float
    at_s: float
    error_s: float
    epoch_minus_monotonic_s: float

    def to_local(self, remote_monotonic_s: float) -> float:
        return self.at_s + (remote_monotonic_s - self.offset_s - self.at_s) / (1 + self.drift)

    def to_remote(self, local_monotonic_s: float) -> float:
        return local_monotonic_s + self.offset_s + self.drift * (local_monotonic_s - self.at_s)


def estimate(readings: Sequence[Reading]) -> ClockEstimate:
    """The best line through the readings, in any order. Raises ValueError when there are none."""
    if not readings:
        raise ValueError("no reading of the remote clock: its machine never answered")
    rows = sorted((r.sent_s, r.received_s, r.remote_monotonic_s, r.remote_epoch_s) for r in readings)
    sent_s, received_s, remote_s, epoch_s = np.array(rows, dtype=np.float64).T
    best = _shortest_by_window(sent_s, received_s - sent_s)
    local_s = (sent_s[best] + received_s[best]) / 2
    half_trip_s = (received_s[best] - sent_s[best]) / 2
    apart_s = remote_s[best] - local_s
    at_s = float(local_s.mean())
    span_s = float(np.ptp(local_s))
    measurable = span_s >= _DRIFT_SPAN_S
    drift = _median_slope(local_s, apart_s) if measurable else 0.0
    level_s = apart_s - drift * (local_s - at_s)
    offset_s = float(np.median(level_s))
    # At each reading used the line is off by its residual plus half its round trip. The error is itself a line, so
    # this bounds it between the first and the last of them, and beyond by the steepest that fits.
    within_s = float((np.abs(level_s - offset_s) + half_trip_s * (1 + _DRIFT_MAX)).max())
    steepest = 2 * within_s / span_s if measurable else _DRIFT_MAX
    beyond_s = max(float(local_s.min() - sent_s.min()), float(received_s.max() - local_s.max()))
    return ClockEstimate(
        offset_s=offset_s,
        drift=drift,
        at_s=at_s,
        error_s=within_s + steepest * beyond_s,
        epoch_minus_monotonic_s=float(np.median(epoch_s - remote_s)),
    )


def _shortest_by_window(sent_s: Floats, round_trip_s: Floats) -> Codes:
    """Index of the reading with the shortest round trip in each window, but of windows in which all were slow."""
    best: dict[int, int] = {}
    windows = np.floor((sent_s - sent_s.min()) / _WINDOW_S).astype(int).tolist()
    for index, window in enumerate(windows):
        if window not in best or round_trip_s[index] < round_trip_s[best[window]]:
            best[window] = index
    chosen = np.array(list(best.values()))
    fast: Codes = chosen[round_trip_s[chosen] <= _SLOW * np.median(round_trip_s[chosen])]
    return fast


def _median_slope(x: Floats, y: Floats) -> float:
    first, second = np.triu_indices(len(x), k=1)
    return float(np.median((y[second] - y[first]) / (x[second] - x[first])))
