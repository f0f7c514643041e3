"""What arithmetic lets expect of cells, beside what was measured, and whether chance explains the difference."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from testbed.results.measure.ledger import PhaseLedger, Traffic
from testbed.results.measure.rights import FORWARDS
from testbed.scenario import ExpectedShares

SIGMAS = 3.0


@dataclass(frozen=True, slots=True)
class Compared:
    """Shares of 1. `by_chance`: `measured` is off by no more than `tolerance`, which is what n independent choices are
    within at 3 standard errors."""

    what: Literal["partition_local_share", "forwards"]
    expected: float
    measured: float
    tolerance: float
    by_chance: bool


def compared(expected: ExpectedShares | None, ledger: PhaseLedger | None, sent: int) -> tuple[Compared, ...]:
    """Of a phase in which nothing goes wrong, with so many requests. Nothing where there was none to measure."""
    return () if expected is None or ledger is None else tuple(_compared(expected, ledger, sent))


def _compared(expected: ExpectedShares, ledger: PhaseLedger, sent: int) -> Iterator[Compared]:
    if ledger.partition_local_share is not None:
        yield _share(
            "partition_local_share", expected.partition_local, ledger.partition_local_share, ledger.between_pods
        )
    if ledger.by_right and sent:
        forwards = sum(ledger.by_right.get(right, Traffic()).calls for right in FORWARDS)
        yield _share("forwards", expected.forwards, forwards / sent, sent)


def _share(what: Literal["partition_local_share", "forwards"], expected: float, measured: float, n: int) -> Compared:
    tolerance = SIGMAS * max(0.0, expected * (1 - expected) / n) ** 0.5
    return Compared(what, expected, measured, tolerance, abs(measured - expected) <= tolerance + 1e-9)
