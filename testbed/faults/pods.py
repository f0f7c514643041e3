"""Faults of pods: killed on a node that lives."""

from __future__ import annotations

from dataclasses import dataclass

from testbed.faults.effects import Effect, KillPods
from testbed.objects.places import Topology


@dataclass(frozen=True, slots=True)
class PodKill:
    """Kills one named pod, or the first `count` ready pods of a service. There is nothing to undo: the kubelet does."""

    pod: str | None = None
    service: str | None = None
    zone: str | None = None
    count: int = 1

    def effects(self, topology: Topology) -> tuple[Effect, ...]:
        return (KillPods(self.pod, self.service, self.zone, self.count),)
