"""How clients lived through each fault and its heal.

Owns the definition of recovery; it stands at `recovery` and `Steady`. The control plane's part is `control_path`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from testbed.results.measure.control_path import DETECTED_FAULT, DETECTED_HEAL, ControlPath, control_path
from testbed.results.measure.moments import WINDOW_S, Change, moments
from testbed.results.tables.columns import Floats, Mask, Requests
from testbed.results.tables.facts import AppliedFault

TARGET_SUCCESS = 0.99
FALSE_ALARMS = 0.01
"""Of how many aftermaths in which nothing but the steady phase's own errors happened one may show an outage."""
LOOKS_PER_S = 2
"""Windows overlap, so that those that begin within a second are wrong together: they count as so many."""


@dataclass(frozen=True, slots=True)
class Errors:
    failed: int = 0
    unknown: int = 0


@dataclass(frozen=True, slots=True)
class Steady:
    """How clients fared before any fault. What was not ok then is no fault's doing: recovery is judged against it."""

    sent: int = 0
    not_ok: int = 0

    @property
    def not_ok_share(self) -> float:
        return self.not_ok / self.sent if self.sent else 0.0

    @property
    def below_target(self) -> bool:
        return self.not_ok_share > 1 - TARGET_SUCCESS

    def explains(self, not_ok: Floats, sent: Floats, seconds: float) -> Mask:
        """Whether chance alone can have made a window with `sent` requests so bad, one of those within `seconds`.

        The share of errors is taken as the steady phase's, plus its standard error. By Chernoff and Hoeffding (1963),
        a share of `a` or more in n requests comes with a probability of at most exp(-n KL(a || share)); a window is
        worse than steady where that is less than `FALSE_ALARMS`, divided by the number of looks.
        """
        explained: Mask
        if not self.not_ok:
            explained = not_ok == 0
            return explained
        share = min((self.not_ok + self.not_ok**0.5) / self.sent, 1 - 1e-9)
        seen = not_ok / sent
        unlikely = np.log(LOOKS_PER_S * max(seconds, 1.0) / FALSE_ALARMS)
        explained = (seen <= share) | (sent * _divergence(seen, share) <= unlikely)
        return explained


def _divergence(seen: Floats, share: float) -> Floats:
    """Kullback-Leibler divergence of two chances, in nats."""
    ok = 1 - seen
    bad_part: Floats = seen * np.log(np.where(seen > 0, seen, 1.0) / share)
    ok_part: Floats = ok * np.log(np.where(ok > 0, ok, 1.0) / (1 - share))
    return bad_part + ok_part


@dataclass(frozen=True, slots=True)
class Recovery:
    """How clients lived through one change, and how many requests that concerns. See `recovery` for the definitions."""

    first_error_s: float | None
    recovered_s: float | None
    time_to_recover_s: float | None
    errors: Errors
    sent: int = 0
    last_error_s: float | None = None


@dataclass(frozen=True, slots=True)
class Aftermath:
    """One change, a fault or its heal, and all that followed until the next moment (`moments`).

    `shared_with` names what came together with it: the errors and the first of them are those of all, and clients
    recovered from all of them at once.
    """

    at_s: float
    recovery: Recovery
    control: ControlPath
    shared_with: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FaultImpact:
    fault: AppliedFault
    applied: Aftermath
    healed: Aftermath | None


def impacts(
    requests: Requests,
    events: pa.Table,
    pushes: pa.Table,
    faults: Sequence[AppliedFault],
    end_s: float,
    steady: Steady = Steady(),
) -> tuple[FaultImpact, ...]:
    """For every fault what followed its application and its heal, each until the next moment or the end of the load."""
    applied: dict[str, Aftermath] = {}
    healed: dict[str, Aftermath] = {}
    for moment in moments(faults):
        until_s = min(end_s, moment.end_s)
        shared = recovery(requests, moment.start_s, until_s, steady)
        for change in moment.changes:
            signs = DETECTED_HEAL if change.heal else DETECTED_FAULT
            (healed if change.heal else applied)[change.fault.name] = Aftermath(
                change.at_s,
                _since(change, shared),
                control_path(events, pushes, change.at_s, until_s, signs),
                moment.besides(change),
            )
    return tuple(FaultImpact(fault, applied[fault.name], healed.get(fault.name)) for fault in faults)


def _since(change: Change, shared: Recovery) -> Recovery:
    """The recovery of a moment, with the time to it counted from one of its changes."""
    if shared.recovered_s is None:
        return shared
    recovered_s = max(shared.recovered_s, change.at_s)
    return replace(shared, recovered_s=recovered_s, time_to_recover_s=recovered_s - change.at_s)


def recovery(requests: Requests, start_s: float, end_s: float, steady: Steady = Steady()) -> Recovery:
    """How clients lived from a moment of change at `start_s` to the next one at `end_s`.

    Of that time are the requests that count in `[start_s, end_s)`: at their intended time, but what was in flight when
    a fault came counts at that moment, since the fault can be what ended it. What is in flight when a fault is healed
    is the fault's own damage and does not count against the heal.

    - `errors`: of these, how many failed and how many are unknown; `first_error_s`: the first one's intended time,
      which lies before a fault for a request that the fault met in flight; `last_error_s`: the last one's.
    - A window is one second that begins at one of these requests and ends by `end_s`; if there is no such second,
      there is one window, the whole time. A window is good when at least 99 % of its requests are ok, or when the
      errors of the steady phase explain what is not (`Steady.explains`).
    - `recovered_s`: `start_s` if every window is good, else the time of the first request from which on every window
      is good; None if there is no such request (or there were no requests at all). A silence, as of a closed load
      whose users all hang, thus counts as not recovered. Where the steady phase has errors a good window may hold the
      end of an outage, and the request is the first after that (`_outage_in`).
    """
    inside = (requests.counted_s >= start_s) & (requests.counted_s < end_s)
    counted_s, ok = requests.counted_s[inside], requests.ok[inside]
    if not len(ok):
        return Recovery(None, None, None, Errors())
    failed = int(requests.failed[inside].sum())
    errors = Errors(failed, int((~ok).sum()) - failed)
    errors_s = requests.intended_s[inside][~ok]
    first_error_s, last_error_s = (float(errors_s.min()), float(errors_s.max())) if len(errors_s) else (None, None)

    def recovered(at_s: float | None) -> Recovery:
        time_s = None if at_s is None else at_s - start_s
        return Recovery(first_error_s, at_s, time_s, errors, len(ok), last_error_s)

    order = np.argsort(counted_s, kind="stable")
    counted_s, not_ok = counted_s[order], ~ok[order]
    before = np.concatenate(([0], np.cumsum(not_ok)))
    begin = np.searchsorted(counted_s, counted_s, side="left")
    end = np.searchsorted(counted_s, counted_s + WINDOW_S, side="left")
    judged = counted_s + WINDOW_S <= end_s
    if not judged.any():
        judged[0], end[0] = True, len(ok)
    sent, bad = (end - begin).astype(np.float64), (before[end] - before[begin]).astype(np.float64)
    # The margin keeps 99 of 100 from failing by a rounding of 0.01 x 100.
    worse = judged & (bad > (1 - TARGET_SUCCESS) * sent + 1e-9)
    worse &= ~steady.explains(bad, sent, end_s - start_s)
    if not worse.any():
        return recovered(start_s)
    last = int(np.flatnonzero(worse)[-1])
    if last + 1 == len(judged) or not judged[last + 1]:
        return recovered(None)
    outage = _outage_in(not_ok[begin[last] : end[last]], steady) if steady.not_ok else 1
    after = max(last + 1, int(begin[last]) + outage)
    return recovered(float(counted_s[after]) if after < len(counted_s) else None)


def _outage_in(not_ok: Mask, steady: Steady) -> int:
    """How many of a window's requests, from its first on, belong to an outage that ends in it: the likeliest number.

    The errors of those have a level of their own, the others' is the steady phase's.
    """
    sent = np.arange(1, len(not_ok) + 1, dtype=np.float64)
    seen, usual = np.cumsum(not_ok) / sent, min(steady.not_ok_share, 1 - 1e-9)
    return int(np.argmax(np.where(seen > usual, sent * _divergence(seen, usual), 0.0))) + 1
