"""Tables and facts of a run -> everything that was measured. Neither judges it nor writes it down."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from testbed.results.measure.blocked import BlockedWrites, blocked_writes
from testbed.results.measure.calls import Calls, CallShares, calls_made
from testbed.results.measure.control_path import CutOffs
from testbed.results.measure.entry import Entries
from testbed.results.measure.handover import Handover, handovers
from testbed.results.measure.histories.check import HistoryReport
from testbed.results.measure.histories.table import checked
from testbed.results.measure.leaders import LeaderChange, leader_changes
from testbed.results.measure.ledger import Ledger, PhaseLedger
from testbed.results.measure.parts import OF_RECOVERY, By, divided
from testbed.results.measure.phases import Phase, PhaseStats, phase_stats, phases
from testbed.results.measure.recovery import FaultImpact, Part, PartsBy, impacts
from testbed.results.measure.steady import Steady
from testbed.results.tables.columns import Requests
from testbed.results.tables.run import Run
from testbed.scenario import RecoveryRule

ALL = "all"
"""The phase of everything but the warm-up."""


@dataclass(frozen=True, slots=True)
class Measured:
    """By phase: `warmup`, `steady`, `during <fault>`, `after <fault>`, in this order, then `all`. Impacts by fault."""

    stats: Mapping[str, PhaseStats]
    calls: Mapping[str, CallShares]
    ledger: Mapping[str, PhaseLedger]
    impacts: Mapping[str, FaultImpact]
    steady: Steady
    """What recovery is judged against."""
    steady_by: Mapping[By, Mapping[str, Steady]]
    """The same for each part of all requests."""
    handovers: Mapping[int, Handover]
    """By version of the partition map."""
    history: HistoryReport | None = None
    """None where clients did nothing to a store's keys."""
    leaders: tuple[LeaderChange, ...] = ()
    blocked: Mapping[int, BlockedWrites] = field(default_factory=dict)
    """By version of the partition map, of steps that moved data."""


def measure(run: Run, requests: Requests) -> Measured:
    """`requests` are those of the run, whose hops are without those of strangers."""
    facts = run.facts
    parts = (*phases(facts.warmup_s, facts.end_s, facts.faults), Phase(ALL, facts.warmup_s, facts.end_s))
    stats = {phase.name: phase_stats(requests, phase) for phase in parts}
    # First what copies requests, then what copies calls: together they would not fit.
    found, steady, steady_by = _lived_through(run, requests, stats.get("steady"))
    made = calls_made(run.hops)
    calls = Calls(made)
    ledger = Ledger(made, facts.prices, facts.cities, facts.backups, facts.cross_cell, facts.lent)
    leaders, steps = leader_changes(run.events), [step for fault in facts.faults for step in fault.steps]
    return Measured(
        stats,
        {phase.name: calls.within(phase) for phase in parts},
        {phase.name: ledger.within(phase) for phase in parts},
        {impact.fault.name: impact for impact in found},
        steady,
        steady_by,
        handovers(run.hops, steps),
        checked(run.operations),
        leaders,
        blocked_writes(run.operations, leaders, steps),
    )


def _lived_through(
    run: Run, requests: Requests, before: Phase | None
) -> tuple[Sequence[FaultImpact], Steady, Mapping[By, Mapping[str, Steady]]]:
    """The impact of every fault, and the steady phases that they are judged by: of all, and of each part."""
    facts = run.facts
    steady = steady_of(requests, before, facts.recovery)
    if not facts.faults:
        return (), steady, {}
    divisions: PartsBy = {by: dict(_parts(by, run, requests, before)) for by in OF_RECOVERY}
    entries = Entries.of(run.requests, requests, run.events)
    nodes = dict(zip(run.pods["pod"].to_pylist(), run.pods["node"].to_pylist(), strict=True))
    cut_offs = CutOffs.of(facts.faults, nodes)
    found = impacts(requests, run.events, run.pushes, facts.faults, facts.end_s, steady, divisions, entries, cut_offs)
    return found, steady, {by: {name: part.steady for name, part in each.items()} for by, each in divisions.items()}


def _parts(by: By, run: Run, requests: Requests, before: Phase | None) -> Iterator[tuple[str, Part]]:
    for name, chosen in divided(by, run.requests, run.hops, run.facts).masks():
        own = requests if chosen.all() else requests.where(chosen)
        yield name, Part(own, steady_of(own, before, run.facts.recovery))


def steady_of(requests: Requests, before: Phase | None, rule: RecoveryRule) -> Steady:
    """How these requests fared in the phase before any fault."""
    if before is None:
        return Steady(rule=rule)
    inside = (requests.counted_s >= before.start_s) & (requests.counted_s < before.end_s)
    return Steady(int(inside.sum()), int(np.sum(inside & ~requests.ok)), rule)
