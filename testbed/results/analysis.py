"""Tables and facts of a run -> everything that was measured. Neither judges it nor writes it down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from testbed.results.calls import Calls, Locality
from testbed.results.columns import Requests
from testbed.results.facts import RunFacts
from testbed.results.phases import Phase, PhaseStats, phase_stats, phases
from testbed.results.recovery import FaultImpact, impacts

ALL = "all"
"""The phase of everything but the warm-up."""


@dataclass(frozen=True, slots=True)
class Measured:
    """By phase: `warmup`, `steady`, `during <fault>`, `after <fault>`, in this order, then `all`. Impacts by fault."""

    stats: Mapping[str, PhaseStats]
    localities: Mapping[str, Locality]
    impacts: Mapping[str, FaultImpact]


def measure(facts: RunFacts, requests: Requests, hops: pa.Table, events: pa.Table, pushes: pa.Table) -> Measured:
    calls = Calls(hops)
    parts = (*phases(facts.warmup_s, facts.end_s, facts.faults), Phase(ALL, facts.warmup_s, facts.end_s))
    return Measured(
        {phase.name: phase_stats(requests, phase) for phase in parts},
        {phase.name: calls.within(phase) for phase in parts},
        {impact.fault.name: impact for impact in impacts(requests, events, pushes, facts.faults, facts.end_s)},
    )
