"""What requests suffered, by what they have in common: on demand, as it takes one or several things."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from testbed.results.measure.analysis import ALL, steady_of
from testbed.results.measure.moments import moments
from testbed.results.measure.parts import By, Parts, combined, divided
from testbed.results.measure.phases import Phase, PhaseStats, phase_stats, phases
from testbed.results.measure.recovery import Part, Recovery, recovery_of_parts, since
from testbed.results.tables.columns import Requests
from testbed.results.tables.facts import RunFacts
from testbed.results.tables.writer import read_table

_COLUMNS = (
    *("request_id", "origin_zone", "name", "intended_s", "sent_s", "finished_s", "latency_ms", "outcome", "entry_zone"),
)
_HOPS = ("request_id", "direction", "source_service", "owner_cell")


@dataclass(frozen=True, slots=True)
class AfterChange:
    """What followed a fault or its heal, for every part that sent something meanwhile."""

    name: str
    at_s: float
    parts: Mapping[str, Recovery]


@dataclass(frozen=True, slots=True)
class Breakdown:
    """The parts with the most requests, in the order of their names; `more` are the others, with so many requests.

    `stats` has for each part all phases but the warm-up, `all` first.
    """

    by: tuple[By, ...]
    stats: Mapping[str, tuple[PhaseStats, ...]]
    changes: tuple[AfterChange, ...]
    more: int
    more_requests: int
    without: int
    """Requests that are of no part."""


def break_down(run_dir: Path, by: Sequence[By], most: int) -> Breakdown:
    """Reads what it needs of the tables. Raises BadRunFolder."""
    facts = RunFacts.load(run_dir)
    table = read_table(run_dir, "requests", [*_COLUMNS, *(["path"] if facts.has_routes_by_path else [])])
    hops = read_table(run_dir, "hops", _HOPS)
    requests = Requests.of(table, facts.faults)
    parts = combined([divided(each, table, hops, facts) for each in by])
    counts = np.bincount(parts.numbers[parts.numbers >= 0], minlength=len(parts.names))
    chosen = np.argsort(-counts, kind="stable")[: min(most, int((counts > 0).sum()))]
    found = {
        name: requests.where(mask)
        for name, mask in Parts(np.where(np.isin(parts.numbers, chosen), parts.numbers, -1), parts.names).masks()
    }
    every = Phase(ALL, facts.warmup_s, facts.end_s)
    shown = (every, *(each for each in phases(facts.warmup_s, facts.end_s, facts.faults) if each.name != "warmup"))
    before = next((each for each in shown if each.name == "steady"), None)
    judged = {name: Part(own, steady_of(own, before, facts.recovery)) for name, own in found.items()}
    changes = []
    for moment in moments(facts.faults):
        after = recovery_of_parts(judged, moment.start_s, min(facts.end_s, moment.end_s))
        changes += [
            AfterChange(change.name, change.at_s, {name: since(change, one) for name, one in after.items()})
            for change in moment.changes
        ]
    return Breakdown(
        tuple(by),
        {name: tuple(phase_stats(own, phase) for phase in shown) for name, own in found.items()},
        tuple(changes),
        int((counts > 0).sum()) - len(chosen),
        int(counts.sum() - counts[chosen].sum()),
        int((parts.numbers < 0).sum()),
    )
