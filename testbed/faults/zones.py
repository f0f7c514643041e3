"""Faults of whole zones."""

from __future__ import annotations

from dataclasses import dataclass

from testbed.faults.effects import CutPower, Effect
from testbed.faults.links import silence
from testbed.objects.places import Topology


@dataclass(frozen=True, slots=True)
class ZoneCrash:
    """All nodes of a zone lose their power at once.

    A control plane that lies in the zone falls silent with it: what it decides reaches nobody until the zone is back.
    """

    zone: str

    def victims(self, topology: Topology) -> tuple[str, ...]:
        """The nodes that go down, in topology order. Raises KeyError for a zone that the topology does not have."""
        return topology.nodes_of((self.zone,))

    def effects(self, topology: Topology) -> tuple[Effect, ...]:
        silenced = silence(topology.places_of((self.zone,)), topology)
        return (silenced, *(CutPower(node) for node in self.victims(topology)))
