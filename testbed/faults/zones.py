"""Faults of whole zones."""

from __future__ import annotations

from dataclasses import dataclass

from testbed.faults.effects import CutMasterPower, CutPower, Effect
from testbed.faults.links import silence
from testbed.objects.places import Topology


@dataclass(frozen=True, slots=True)
class ZoneCrash:
    """All nodes of a zone lose their power at once.

    So does a master that lies there.
    """

    zone: str

    def victims(self, topology: Topology) -> tuple[str, ...]:
        """The nodes that go down, in topology order. Raises KeyError for a zone that the topology does not have."""
        return topology.nodes_of((self.zone,))

    def effects(self, topology: Topology) -> tuple[Effect, ...]:
        places = topology.places_of((self.zone,))
        masters = [place for place in places if topology.place(place).kind == "control-plane"]
        return (
            silence(places, topology),
            *(CutMasterPower(master) for master in masters),
            *(CutPower(node) for node in self.victims(topology)),
        )
