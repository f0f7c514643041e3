"""The parts of a run between the changes that faults make, and what clients saw in each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from testbed.results.measure.moments import moments
from testbed.results.tables.columns import Asked, Mask, Requests
from testbed.results.tables.facts import AppliedFault

QUANTILES = (("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99), ("p999", 0.999))


@dataclass(frozen=True, slots=True)
class Phase:
    name: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class RouterStats:
    """Of the requests of directed clients in a phase: how many asked a router, how often, and what that took.

    `unrouted` were told no cell and sent nowhere: whatever their outcome, it is the router's. Quantiles are of all
    others that asked, None without any.
    """

    asked: int
    questions: int
    unrouted: int
    p50_ms: float | None
    p99_ms: float | None


@dataclass(frozen=True, slots=True)
class PhaseStats(Phase):
    """A phase, and what clients saw of the requests that count in it (`Requests.counted_s`).

    Values that need requests (or ok ones) are None where there are none. `latency_ms` has the quantiles of ok requests
    only, from the intended send time: a time-out says how patient the client is and not how slow the service. The
    others are `not_ok_share`.
    """

    sent: int
    ok: int
    failed: int
    unknown: int
    success_rate: float | None
    not_ok_share: float | None
    rate_per_s: float
    latency_ms: dict[str, float | None]
    router: RouterStats | None = None
    """None where clients ask no router."""


def phases(warmup_s: float, end_s: float, faults: Sequence[AppliedFault]) -> tuple[Phase, ...]:
    """`warmup`, `steady` until the first fault, `during <fault>` until its heal, `after <fault>` until the next fault.

    In order of their beginnings. A fault of one instant has no `during`. Phases of overlapping faults overlap. Those of
    faults that came together (`moments`) begin with the first of them, and a fault that came together with a heal does
    not end the time after it. Empty ones are left out.
    """
    first_s = min([end_s, *(fault.applied_s for fault in faults)])
    found = [Phase("warmup", 0.0, warmup_s), Phase("steady", warmup_s, first_s)]
    every = moments(faults)
    for number, moment in enumerate(every):
        later_s = [later.faults_from_s for later in every[number + 1 :] if later.faults_from_s is not None]
        until_s = min([end_s, *later_s])
        for change in moment.changes:
            fault = change.fault
            from_s = change.at_s if change.heal or moment.faults_from_s is None else moment.faults_from_s
            if change.heal or fault.instant:
                found.append(Phase(f"after {fault.name}", from_s, until_s))
            else:
                over_s = end_s if fault.healed_s is None else min(fault.healed_s, end_s)
                found.append(Phase(f"during {fault.name}", from_s, over_s))
    return tuple(phase for phase in found if phase.end_s > phase.start_s)


def phase_stats(requests: Requests, phase: Phase) -> PhaseStats:
    inside = (requests.counted_s >= phase.start_s) & (requests.counted_s < phase.end_s)
    good = inside & requests.ok
    sent, ok = int(inside.sum()), int(good.sum())
    failed = int((inside & requests.failed).sum())
    latency_ms = requests.latency_ms[good]
    points = np.quantile(latency_ms, [q for _, q in QUANTILES]).tolist() if ok else [None] * len(QUANTILES)
    return PhaseStats(
        phase.name,
        phase.start_s,
        phase.end_s,
        sent,
        ok,
        failed,
        sent - ok - failed,
        ok / sent if sent else None,
        1 - ok / sent if sent else None,
        sent / (phase.end_s - phase.start_s) if sent else 0.0,
        {name: point for (name, _), point in zip(QUANTILES, points, strict=True)},
        _router_stats(requests.asked, inside),
    )


def _router_stats(asked: Asked | None, inside: Mask) -> RouterStats | None:
    if asked is None:
        return None
    questions, unrouted = asked.questions[inside], asked.unrouted[inside]
    told_ms = asked.took_ms[inside][(questions > 0) & ~unrouted]
    p50_ms, p99_ms = np.quantile(told_ms, [0.5, 0.99]).tolist() if len(told_ms) else (None, None)
    return RouterStats(int((questions > 0).sum()), int(questions.sum()), int(unrouted.sum()), p50_ms, p99_ms)
