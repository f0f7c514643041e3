"""Faults of masters: killed, paused, or without power."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from testbed.faults.effects import CutMasterPower, Effect, KillMaster, PauseMaster
from testbed.faults.links import silence
from testbed.objects.places import Topology


@dataclass(frozen=True, slots=True)
class MasterFault:
    """What happens to the master at a place. A kill has nothing to undo: whoever supervises it does. Without power it
    is silent first, as a node is, and begins again at the heal."""

    place: str
    what: Literal["kill", "pause", "crash"]

    def effects(self, topology: Topology) -> tuple[Effect, ...]:
        place = topology.place(self.place).name
        match self.what:
            case "kill":
                return (KillMaster(place),)
            case "pause":
                return (PauseMaster(place),)
            case "crash":
                return (silence((place,), topology), CutMasterPower(place))
