"""Faults in time: which actions are due when.

Owns the order of starts and stops. What each fault does is its own module; carrying it out is `emulation`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from testbed.faults.actions import Action
from testbed.faults.links import LinkFault
from testbed.faults.machines import MachinePowerOff
from testbed.faults.nodes import NodeCrash
from testbed.faults.pods import PodKill
from testbed.faults.zones import ZoneCrash
from testbed.objects.places import Topology

Fault = LinkFault | MachinePowerOff | NodeCrash | PodKill | ZoneCrash


@dataclass(frozen=True, slots=True)
class ScheduledFault:
    """Times are seconds since the load began. `for_s` is None for a fault that happens at one instant."""

    name: str
    at_s: float
    for_s: float | None
    fault: Fault


@dataclass(frozen=True, slots=True)
class Step:
    """All actions of one fault that are due at one time."""

    at_s: float
    fault: str
    phase: Literal["start", "stop"]
    actions: tuple[Action, ...]


def steps(faults: tuple[ScheduledFault, ...], topology: Topology) -> tuple[Step, ...]:
    """Starts and stops of all faults in order of time; at one time stops come first, then the order of the faults."""
    due = [Step(f.at_s, f.name, "start", f.fault.start(f.name, topology)) for f in faults]
    due += [
        Step(f.at_s + f.for_s, f.name, "stop", f.fault.stop(f.name, topology)) for f in faults if f.for_s is not None
    ]
    return tuple(sorted(due, key=lambda step: (step.at_s, step.phase == "start")))
