"""Expectations -> whether each holds -> the verdict and the exit code of the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from testbed.results.measure.analysis import Measured
from testbed.results.measure.histories.findings import Kind
from testbed.results.measure.ledger import Traffic
from testbed.results.measure.parts import OF_RECOVERY
from testbed.results.measure.phases import PhaseStats, RouterStats
from testbed.results.measure.recovery import FaultImpact
from testbed.results.measure.rights import FORWARDS
from testbed.scenario import Expectation
from testbed.scenario.models.metrics import METRICS, OF_CELLS

Verdict = Literal["passed", "failed", "invalid", "interrupted"]

EXIT_CODES: dict[Verdict, int] = {"passed": 0, "failed": 1, "invalid": 3, "interrupted": 130}
"""2 is for bad input: then there is no run, and no verdict."""


_KINDS = {"lost_writes": Kind.LOST_WRITE, "stale_reads": Kind.STALE_READ, "double_writes": Kind.DOUBLE_WRITE}
_OF_CALLS = frozenset({"same_zone_share", "same_cell_share", *OF_CELLS})


@dataclass(frozen=True, slots=True)
class ExpectationResult:
    """`measured` is in the metric's unit (seconds, share of 1, per second); None, and not held, where there is none.

    `held` is None where it was not judged, because the run was interrupted or is invalid. `shown` is `measured` for
    people, or why there is no value. `bound` is what was expected, for people.
    """

    metric: str
    measured: float | None
    bound: str
    held: bool | None
    text: str
    shown: str


def check(expectation: Expectation, measured: Measured, judged: bool) -> ExpectationResult:
    """Bounds are inclusive. What cannot be computed does not hold, unless nothing is to be `judged`."""
    value = _value(expectation, measured)
    low, high = expectation.at_least, expectation.at_most
    bounds = [
        f"{word} {METRICS[expectation.metric].format(bound)}"
        for word, bound in (("at least", low), ("at most", high))
        if bound is not None
    ]
    bound, text = " and ".join(bounds), expectation.text
    if isinstance(value, str):
        return ExpectationResult(expectation.metric, None, bound, False if judged else None, text, value)
    held = (low is None or value >= low) and (high is None or value <= high)
    shown = str(METRICS[expectation.metric].format(round(value, 5)))
    if shared := _shared_with(expectation, measured):
        shown += f" (shared with {', '.join(shared)})"
    return ExpectationResult(expectation.metric, value, bound, held if judged else None, text, shown)


def decide(results: Sequence[ExpectationResult], invalid_reasons: Sequence[str], interrupted: bool) -> Verdict:
    """An interrupted run is not judged; an invalid one is not judged by its expectations."""
    if interrupted:
        return "interrupted"
    if invalid_reasons:
        return "invalid"
    return "passed" if all(result.held for result in results) else "failed"


def _value(expectation: Expectation, measured: Measured) -> float | str:
    """The measured value, or why there is none."""
    metric, fault = expectation.metric, expectation.fault
    if fault is not None and fault not in measured.impacts:
        return f"fault {fault} was never applied"
    if fault is not None and (hit_nothing := measured.impacts[fault].fault.hit_nothing):
        return f"fault {fault} hit nothing: {hit_nothing}"
    if metric == "time_to_recover":
        assert fault is not None, "the scenario's own checks let no time_to_recover pass without a fault"
        return _time_to_recover(expectation, measured.impacts[fault])
    when = expectation.when
    phase = f"{when} {fault}" if when in ("during", "after") else when
    if phase not in measured.stats:
        return f"the run had no time {phase!r}"
    stats, calls, ledger = measured.stats[phase], measured.calls[phase], measured.ledger[phase]
    value: float | None
    match metric:
        case "cross_zone_bytes":
            value = ledger.cross_zone.bytes
            if value is None:
                return "an earlier version recorded the run, without the bytes of calls"
        case "success_rate":
            value = stats.success_rate
        case "request_rate":
            value = stats.rate_per_s
        case "lost_writes" | "stale_reads" | "double_writes":
            value = None if measured.history is None else len(measured.history.of_kind(_KINDS[metric]))
        case "blocked_time" | "blocked_elsewhere":
            return _of_moved_data(metric, measured)
        case "errors":
            value = stats.failed + stats.unknown
        case "partition_local_share" if expectation.service is not None:
            value = ledger.partition_local_share_by_service.get(expectation.service)
        case "partition_local_share":
            value = ledger.partition_local_share
        case "leaks":
            value = ledger.by_right.get("leak", Traffic()).calls if ledger.by_right else None
        case "forwards":
            forwarded = sum(ledger.by_right.get(right, Traffic()).calls for right in FORWARDS)
            value = forwarded / stats.sent if ledger.by_right and stats.sent else None
        case "questions" | "unrouted" | "routed_success_rate":
            value = None if stats.router is None else _of_router(metric, stats, stats.router)
        case "same_zone_share" | "same_cell_share":
            zone = metric == "same_zone_share"
            value = calls.same_zone_share if zone else calls.same_cell_share
            if expectation.service is not None:
                by_service = calls.same_zone_share_by_service if zone else calls.same_cell_share_by_service
                value = by_service.get(expectation.service)
        case _:
            latency_ms = stats.latency_ms[metric.removeprefix("latency_")]
            value = None if latency_ms is None else latency_ms / 1e3
    if value is None:
        return f"nothing to measure: no such {'calls' if metric in _OF_CALLS else 'requests'}"
    return value


def _of_moved_data(metric: str, measured: Measured) -> float | str:
    steps = measured.blocked.values()
    if not steps:
        return "no data was moved"
    if metric == "blocked_elsewhere":
        return sum(step.others_refused for step in steps)
    gaps_s = [blocked_s for step in steps for _, blocked_s in step.blocked]
    return max(gaps_s) if gaps_s else "no leader handed over to another"


def _of_router(metric: str, stats: PhaseStats, router: RouterStats) -> float | None:
    routed = stats.sent - router.unrouted
    match metric:
        case "questions":
            return router.asked / stats.sent if stats.sent else None
        case "unrouted":
            return router.unrouted / stats.sent if stats.sent else None
    return stats.ok / routed if routed else None


def _shared_with(expectation: Expectation, measured: Measured) -> tuple[str, ...]:
    """What came together with the fault or the heal from which the metric counts, so that the figure is theirs, too."""
    if expectation.fault is None:
        return ()
    impact = measured.impacts[expectation.fault]
    aftermath = impact.healed if expectation.when == "after" and not impact.fault.instant else impact.applied
    return () if aftermath is None else aftermath.shared_with


def _time_to_recover(expectation: Expectation, impact: FaultImpact) -> float | str:
    healed = expectation.when == "after"
    aftermath = impact.healed if healed else impact.applied
    if aftermath is None:
        return f"fault {impact.fault.name} was never healed"
    recovery = aftermath.recovery
    for by in OF_RECOVERY:
        if (name := getattr(expectation, by)) is not None:
            if name not in aftermath.by.get(by, {}):
                return "nothing to measure: no such requests"
            recovery = aftermath.by[by][name]
    return "never recovered" if recovery.time_to_recover_s is None else recovery.time_to_recover_s
