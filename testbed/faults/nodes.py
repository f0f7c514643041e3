"""Faults of nodes: power lost and restored."""

from __future__ import annotations

from dataclasses import dataclass

from testbed.faults.effects import CutPower, Effect
from testbed.faults.links import silence
from testbed.objects.places import Topology


@dataclass(frozen=True, slots=True)
class NodeCrash:
    """One node loses its power: first it is silent, then its processes are gone, so that no peer sees a reset."""

    node: str

    def victims(self, topology: Topology) -> tuple[str, ...]:
        return (topology.place(self.node).name,)

    def effects(self, topology: Topology) -> tuple[Effect, ...]:
        return (silence(self.victims(topology), topology), CutPower(self.node))
