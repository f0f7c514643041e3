"""Faults of nodes: power lost and restored."""

from __future__ import annotations

from dataclasses import dataclass

from testbed.faults.actions import Action, BootNode, CrashNode, LiftFromLinks
from testbed.faults.links import silence
from testbed.objects.places import Topology


@dataclass(frozen=True, slots=True)
class NodeCrash:
    """One node loses its power: first it is silent, then its processes are gone, so that no peer sees a reset."""

    node: str

    def victims(self, topology: Topology) -> tuple[str, ...]:
        return (topology.place(self.node).name,)

    def start(self, name: str, topology: Topology) -> tuple[Action, ...]:
        return (silence(name, self.victims(topology), topology), CrashNode(self.node))

    def stop(self, name: str, topology: Topology) -> tuple[Action, ...]:
        return (LiftFromLinks(name), BootNode(self.node))
