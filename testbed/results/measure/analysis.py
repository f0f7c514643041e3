"""Tables and facts of a run -> everything that was measured. Neither judges it nor writes it down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from testbed.results.measure.calls import Calls, CallShares, calls_made
from testbed.results.measure.handover import Handover, handovers
from testbed.results.measure.ledger import Ledger, PhaseLedger
from testbed.results.measure.phases import Phase, PhaseStats, phase_stats, phases
from testbed.results.measure.recovery import FaultImpact, Steady, impacts
from testbed.results.tables.columns import Requests
from testbed.results.tables.facts import RunFacts

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
    handovers: Mapping[int, Handover]
    """By version of the partition map."""


def measure(facts: RunFacts, requests: Requests, hops: pa.Table, events: pa.Table, pushes: pa.Table) -> Measured:
    made = calls_made(hops)
    calls = Calls(made)
    ledger = Ledger(made, facts.prices, facts.cities, facts.backups, facts.cross_cell, facts.lent)
    parts = (*phases(facts.warmup_s, facts.end_s, facts.faults), Phase(ALL, facts.warmup_s, facts.end_s))
    stats = {phase.name: phase_stats(requests, phase) for phase in parts}
    before = stats.get("steady")
    steady = Steady() if before is None else Steady(before.sent, before.failed + before.unknown)
    found = impacts(requests, events, pushes, facts.faults, facts.end_s, steady)
    shares = {phase.name: calls.within(phase) for phase in parts}
    costs = {phase.name: ledger.within(phase) for phase in parts}
    handed = handovers(hops, [step for fault in facts.faults for step in fault.steps])
    return Measured(stats, shares, costs, {impact.fault.name: impact for impact in found}, steady, handed)
