"""What arithmetic lets expect of cells, beside what was measured, and whether chance explains the difference."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from testbed.results.measure.ledger import PhaseLedger, Traffic
from testbed.results.measure.phases import PhaseStats
from testbed.results.measure.rights import FORWARDS
from testbed.scenario import ExpectedShares

SIGMAS = 3.0

What = Literal["partition_local_share", "forwards", "questions", "out_of_zone", "bodies_cost_per_month"]
MONTH_S = 30 * 86400


@dataclass(frozen=True, slots=True)
class Compared:
    """Shares of 1, but for `bodies_cost_per_month`: in the currency of the prices, at the rate that was sent.

    `by_chance`: `measured` is off by no more than `tolerance`, which is what n independent choices are within at 3
    standard errors.
    """

    what: What
    expected: float
    measured: float
    tolerance: float
    by_chance: bool


def compared(
    expected: ExpectedShares | None, ledger: PhaseLedger | None, stats: PhaseStats | None
) -> tuple[Compared, ...]:
    """Of a phase in which nothing goes wrong. Nothing where there was none to measure."""
    return () if expected is None or ledger is None or stats is None else tuple(_compared(expected, ledger, stats))


def _compared(expected: ExpectedShares, ledger: PhaseLedger, stats: PhaseStats) -> Iterator[Compared]:
    sent = stats.sent
    if ledger.partition_local_share is not None:
        yield _share(
            "partition_local_share", expected.partition_local, ledger.partition_local_share, ledger.between_pods
        )
    if ledger.by_right and sent:
        forwards = sum(ledger.by_right.get(right, Traffic()).calls for right in FORWARDS)
        yield _share("forwards", expected.forwards, forwards / sent, sent)
    if expected.questions is not None and stats.router is not None and sent:
        yield _share("questions", expected.questions, stats.router.asked / sent, sent)
    if expected.out_of_zone and ledger.all.calls and sent:
        yield from _carried(expected, expected.out_of_zone, ledger, stats)


def _carried(
    expected: ExpectedShares, out_of_zone: float, ledger: PhaseLedger, stats: PhaseStats
) -> Iterator[Compared]:
    """All calls of a session go much the same way, so that it is one choice of chance and no more. What costs goes out
    of the zone: its tolerance is in proportion."""
    choices = max(1, stats.sent // expected.session)
    crossing = _share("out_of_zone", out_of_zone, ledger.cross_zone.calls / ledger.all.calls, choices)
    yield crossing
    if expected.bodies_cost_per_request and ledger.bodies_cost is not None:
        rate_per_s = stats.sent / (stats.end_s - stats.start_s)
        cost = expected.bodies_cost_per_request * rate_per_s * MONTH_S
        measured = ledger.bodies_cost / (stats.end_s - stats.start_s) * MONTH_S
        tolerance = cost * crossing.tolerance / out_of_zone
        yield Compared("bodies_cost_per_month", cost, measured, tolerance, abs(measured - cost) <= tolerance)


def _share(what: What, expected: float, measured: float, n: int) -> Compared:
    tolerance = SIGMAS * max(0.0, expected * (1 - expected) / n) ** 0.5
    return Compared(what, expected, measured, tolerance, abs(measured - expected) <= tolerance + 1e-9)
