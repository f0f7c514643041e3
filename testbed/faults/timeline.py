"""Faults in time: which of them comes or is undone when. Carrying it out is `emulation`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from testbed.faults.effects import Effect
from testbed.faults.links import LinkFault
from testbed.faults.machines import MachinePowerOff
from testbed.faults.masters import MasterFault
from testbed.faults.nodes import NodeCrash
from testbed.faults.pods import PodKill
from testbed.faults.zones import ZoneCrash
from testbed.objects.places import Topology

Fault = LinkFault | MachinePowerOff | MasterFault | NodeCrash | PodKill | ZoneCrash


@dataclass(frozen=True, slots=True)
class ScheduledFault:
    """Times are seconds since the load began. `for_s` is None for a fault that happens at one instant."""

    name: str
    at_s: float
    for_s: float | None
    fault: Fault

    @property
    def heal_s(self) -> float | None:
        return None if self.for_s is None else self.at_s + self.for_s


@dataclass(frozen=True, slots=True)
class Step:
    """Effects to apply or to revert under the name of a fault: kind by kind in this order, those of a kind at once."""

    at_s: float
    fault: str
    do: Literal["apply", "revert"]
    effects: tuple[Effect, ...]


class Timeline:
    """What is due of all faults: ask again when `next_s` has come.

    Steps come in order of time; at one time reverts come first, then the order of the faults.
    """

    def __init__(self, faults: tuple[ScheduledFault, ...], topology: Topology) -> None:
        """Raises KeyError where a fault names what the topology does not have."""
        steps = []
        for fault in faults:
            effects = fault.fault.effects(topology)
            steps.append(Step(fault.at_s, fault.name, "apply", effects))
            if fault.heal_s is not None:
                lasting = tuple(effect for effect in effects if effect.lasts)
                steps.append(Step(fault.heal_s, fault.name, "revert", lasting))
        self._steps = sorted(steps, key=lambda step: (step.at_s, step.do == "apply"))

    def next_s(self) -> float | None:
        """When something is due next; None when all has been."""
        return self._steps[0].at_s if self._steps else None

    def due(self, now_s: float) -> tuple[Step, ...]:
        """All steps whose time has come, each told once."""
        due = tuple(step for step in self._steps if step.at_s <= now_s)
        del self._steps[: len(due)]
        return due
