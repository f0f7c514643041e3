"""How clients lived through each fault and its heal, all of them and each part of them.

Owns the definition of recovery; it stands at `recovery`, what a good window is at `Steady`. The control plane's part is
`control_path`, the way to another gateway `entry`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from testbed.results.measure.control_path import (
    DETECTED_FAULT,
    DETECTED_HEAL,
    NOBODY,
    ControlPath,
    CutOffs,
    control_path,
)
from testbed.results.measure.entry import Entries, EntryMove
from testbed.results.measure.moments import Change, Moment, moments
from testbed.results.measure.outcomes import Errors
from testbed.results.measure.parts import By
from testbed.results.measure.steady import Steady
from testbed.results.tables.columns import Requests
from testbed.results.tables.facts import AppliedFault

NO_ERRORS = Steady()


@dataclass(frozen=True, slots=True)
class Recovery:
    """How clients lived through one change, and how many requests that concerns. See `recovery` for the definitions."""

    first_error_s: float | None
    recovered_s: float | None
    time_to_recover_s: float | None
    errors: Errors
    sent: int = 0
    last_error_s: float | None = None
    first_error_seen_s: float | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """Requests that have something in common, and how they fared before any fault."""

    requests: Requests
    steady: Steady


PartsBy = Mapping[By, Mapping[str, Part]]


@dataclass(frozen=True, slots=True)
class Aftermath:
    """One change, a fault or its heal, and all that followed until the next moment (`moments`).

    `shared_with` names what came together with it: the errors and the first of them are those of all, and clients
    recovered from all of them at once. `by` has the same of every part that sent something meanwhile.
    """

    at_s: float
    recovery: Recovery
    control: ControlPath
    shared_with: tuple[str, ...] = ()
    entry: tuple[EntryMove, ...] = ()
    by: Mapping[By, Mapping[str, Recovery]] = field(default_factory=dict)


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
    steady: Steady = NO_ERRORS,
    parts: PartsBy | None = None,
    entries: Entries | None = None,
    cut_offs: CutOffs = NOBODY,
) -> tuple[FaultImpact, ...]:
    """For every fault what followed its application and its heal, each until the next moment or the end of the load."""
    applied: dict[str, Aftermath] = {}
    healed: dict[str, Aftermath] = {}
    for moment in moments(faults):
        for change, found in aftermaths(
            moment, end_s, requests, events, pushes, steady, parts or {}, entries, cut_offs
        ):
            (healed if change.heal else applied)[change.fault.name] = found
    return tuple(FaultImpact(fault, applied[fault.name], healed.get(fault.name)) for fault in faults)


def aftermaths(
    moment: Moment,
    end_s: float,
    requests: Requests,
    events: pa.Table,
    pushes: pa.Table,
    steady: Steady,
    parts: PartsBy,
    entries: Entries | None,
    cut_offs: CutOffs = NOBODY,
) -> Iterator[tuple[Change, Aftermath]]:
    """What followed each change of one moment, until the next one or `end_s`."""
    until_s = min(end_s, moment.end_s)
    shared = recovery(requests, moment.start_s, until_s, steady)
    shared_by = {by: recovery_of_parts(each, moment.start_s, until_s) for by, each in parts.items()}
    moved = () if entries is None else entries.moves(moment.start_s, until_s)
    for change in moment.changes:
        signs = DETECTED_HEAL if change.heal else DETECTED_FAULT
        yield (
            change,
            Aftermath(
                change.at_s,
                since(change, shared),
                control_path(events, pushes, change.at_s, until_s, signs, cut_offs),
                moment.besides(change),
                moved,
                {by: {name: since(change, one) for name, one in each.items()} for by, each in shared_by.items()},
            ),
        )


def recovery_of_parts(parts: Mapping[str, Part], start_s: float, end_s: float) -> dict[str, Recovery]:
    """Of those that sent something in that time."""
    found = {name: recovery(part.requests, start_s, end_s, part.steady) for name, part in parts.items()}
    return {name: one for name, one in found.items() if one.sent}


def since(change: Change, shared: Recovery) -> Recovery:
    """The recovery of a moment, with the time to it counted from one of its changes."""
    if shared.recovered_s is None:
        return shared
    recovered_s = max(shared.recovered_s, change.at_s)
    return replace(shared, recovered_s=recovered_s, time_to_recover_s=recovered_s - change.at_s)


def recovery(requests: Requests, start_s: float, end_s: float, steady: Steady = NO_ERRORS) -> Recovery:
    """How clients lived from a moment of change at `start_s` to the next one at `end_s`.

    Of that time are the requests that count in `[start_s, end_s)`: at their intended time, but what was in flight when
    a fault came counts at that moment, since the fault can be what ended it. What is in flight when a fault is healed
    is the fault's own damage and does not count against the heal.

    - `errors`: of these, how many failed and how many are unknown; `first_error_s`: the first one's intended time,
      which lies before a fault for a request that the fault met in flight; `last_error_s`: the last one's.
      `first_error_seen_s`: when the first client had an error, or gave up; None where none did while the load lasted.
    - A window is as long as the rule says (one second), begins at one of these requests and ends by `end_s`; if there
      is no such window, there is one, the whole time. A window is good when at least so many of its requests are ok as
      the rule says (99 %), or when the errors of the steady phase explain what is not (`Steady`).
    - `recovered_s`: `start_s` if every window is good, else the time of the first request from which on every window
      is good; None if there is no such request (or there were no requests at all). A silence, as of a closed load
      whose users all hang, thus counts as not recovered. Where the steady phase has errors a good window may hold the
      end of an outage, and the request is the first after that (`Steady.outage_in`).
    """
    inside = (requests.counted_s >= start_s) & (requests.counted_s < end_s)
    counted_s, ok = requests.counted_s[inside], requests.ok[inside]
    if not len(ok):
        return Recovery(None, None, None, Errors())
    errors = Errors.among(~ok, requests.failed[inside])
    errors_s, seen_s = requests.intended_s[inside][~ok], requests.finished_s[inside][~ok]
    first_error_s, last_error_s = (float(errors_s.min()), float(errors_s.max())) if len(errors_s) else (None, None)
    first_seen_s = float(seen_s.min()) if len(seen_s) and np.isfinite(seen_s.min()) else None

    def recovered(at_s: float | None) -> Recovery:
        time_s = None if at_s is None else at_s - start_s
        return Recovery(first_error_s, at_s, time_s, errors, len(ok), last_error_s, first_seen_s)

    order = np.argsort(counted_s, kind="stable")
    counted_s, not_ok = counted_s[order], ~ok[order]
    before = np.concatenate(([0], np.cumsum(not_ok)))
    begin = np.searchsorted(counted_s, counted_s, side="left")
    end = np.searchsorted(counted_s, counted_s + steady.rule.window_s, side="left")
    judged = counted_s + steady.rule.window_s <= end_s
    if not judged.any():
        judged[0], end[0] = True, len(ok)
    sent, bad = (end - begin).astype(np.float64), (before[end] - before[begin]).astype(np.float64)
    worse = judged & steady.is_worse(bad, sent, end_s - start_s)
    if not worse.any():
        return recovered(start_s)
    last = int(np.flatnonzero(worse)[-1])
    if last + 1 == len(judged) or not judged[last + 1]:
        return recovered(None)
    after = max(last + 1, int(begin[last]) + steady.outage_in(not_ok[begin[last] : end[last]]))
    return recovered(float(counted_s[after]) if after < len(counted_s) else None)
