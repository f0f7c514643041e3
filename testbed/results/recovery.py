"""How clients and the control plane lived through each fault and its heal.

Owns the definitions of recovery and of the control plane's steps; they stand at the functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from testbed.results.columns import Requests, codes, floats
from testbed.results.facts import AppliedFault
from testbed.results.moments import WINDOW_S, Change, moments

TARGET_SUCCESS = 0.99

DETECTED_FAULT = frozenset({"NodeNotReady", "ContainersNotReady", "Unhealthy", "BackOff", "Ejected"})
DETECTED_HEAL = frozenset({"NodeReady", "Started", "Unejected"})
DECIDED = frozenset({"EndpointsChanged"})
WAVE_GAP_S = 0.5
"""Pushes further apart than this belong to different decisions: istiod collects changes for 0.1 s before it pushes."""


@dataclass(frozen=True, slots=True)
class Errors:
    failed: int = 0
    unknown: int = 0


@dataclass(frozen=True, slots=True)
class Recovery:
    """How clients lived through one change. See `recovery` for the definitions."""

    first_error_s: float | None
    recovered_s: float | None
    time_to_recover_s: float | None
    errors: Errors


@dataclass(frozen=True, slots=True)
class ControlPath:
    """When the control plane followed a change, in seconds after it; None where it never did. See `control_path`."""

    detected_s: float | None = None
    decided_s: float | None = None
    pushed_s: float | None = None
    propagated_s: float | None = None
    unacked: int = 0


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
    requests: Requests, events: pa.Table, pushes: pa.Table, faults: Sequence[AppliedFault], end_s: float
) -> tuple[FaultImpact, ...]:
    """For every fault what followed its application and its heal, each until the next moment or the end of the load."""
    applied: dict[str, Aftermath] = {}
    healed: dict[str, Aftermath] = {}
    for moment in moments(faults):
        until_s = min(end_s, moment.end_s)
        shared = recovery(requests, moment.start_s, until_s)
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


def recovery(requests: Requests, start_s: float, end_s: float) -> Recovery:
    """How clients lived from a moment of change at `start_s` to the next one at `end_s`.

    Of that time are the requests that count in `[start_s, end_s)`: at their intended time, but what was in flight when
    a fault came counts at that moment, since the fault can be what ended it. What is in flight when a fault is healed
    is the fault's own damage and does not count against the heal.

    - `errors`: of these, how many failed and how many are unknown; `first_error_s`: the first one's intended time,
      which lies before a fault for a request that the fault met in flight.
    - A window is one second that begins at one of these requests and ends by `end_s`; if there is no such second,
      there is one window, the whole time. A window is good when at least 99 % of its requests are ok.
    - `recovered_s`: `start_s` if every window is good, else the time of the first request from which on every window
      is good; None if there is no such request (or there were no requests at all). A silence, as of a closed load
      whose users all hang, thus counts as not recovered.
    """
    inside = (requests.counted_s >= start_s) & (requests.counted_s < end_s)
    counted_s, ok = requests.counted_s[inside], requests.ok[inside]
    if not len(ok):
        return Recovery(None, None, None, Errors())
    failed = int(requests.failed[inside].sum())
    errors = Errors(failed, int((~ok).sum()) - failed)
    first_error_s = None if ok.all() else float(requests.intended_s[inside][~ok].min())

    order = np.argsort(counted_s, kind="stable")
    counted_s = counted_s[order]
    ok_before = np.concatenate(([0], np.cumsum(ok[order])))
    begin = np.searchsorted(counted_s, counted_s, side="left")
    end = np.searchsorted(counted_s, counted_s + WINDOW_S, side="left")
    judged = counted_s + WINDOW_S <= end_s
    if not judged.any():
        judged[0], end[0] = True, len(ok)
    # The margin keeps 99 of 100 from failing by a rounding of 0.99 x 100.
    bad = judged & (ok_before[end] - ok_before[begin] < TARGET_SUCCESS * (end - begin) - 1e-9)
    if not bad.any():
        return Recovery(first_error_s, start_s, 0.0, errors)
    next_good = int(np.flatnonzero(bad)[-1]) + 1
    if next_good == len(judged) or not judged[next_good]:
        return Recovery(first_error_s, None, None, errors)
    recovered_s = float(counted_s[next_good])
    return Recovery(first_error_s, recovered_s, recovered_s - start_s, errors)


def control_path(
    events: pa.Table, pushes: pa.Table, start_s: float, end_s: float, signs: Iterable[str] = DETECTED_FAULT
) -> ControlPath:
    """How the control plane followed a change at `start_s`, all before `end_s`; times are seconds after `start_s`.

    detected: the first event with one of the reasons `signs`; decided: the first EndpointsChanged; pushed: the first
    push sent since; propagated: the last ACK of that wave, which goes on while pushes are less than 0.5 s apart.
    `unacked` counts pushes of the wave that nobody acknowledged (dead or rejecting proxies).
    """
    times_s = floats(events["t_s"])
    found, reasons = codes(events["reason"])

    def first(wanted: Iterable[str]) -> float | None:
        chosen = np.isin(found, [reasons.index(reason) for reason in sorted(wanted) if reason in reasons])
        matching_s = times_s[chosen & (times_s >= start_s) & (times_s < end_s)]
        return float(matching_s.min()) - start_s if len(matching_s) else None

    detected_s, decided_s = first(signs), first(DECIDED)
    if decided_s is None:
        return ControlPath(detected_s)
    sent_s, acked_s = floats(pushes["sent_s"]), floats(pushes["acked_s"])
    wave = np.flatnonzero((sent_s >= start_s + decided_s) & (sent_s < end_s))
    if not len(wave):
        return ControlPath(detected_s, decided_s)
    wave = wave[np.argsort(sent_s[wave], kind="stable")]
    pauses = np.flatnonzero(np.diff(sent_s[wave]) > WAVE_GAP_S)
    if len(pauses):
        wave = wave[: pauses[0] + 1]
    acks_s = acked_s[wave][~np.isnan(acked_s[wave])]
    return ControlPath(
        detected_s,
        decided_s,
        float(sent_s[wave[0]]) - start_s,
        float(acks_s.max()) - start_s if len(acks_s) else None,
        len(wave) - len(acks_s),
    )
