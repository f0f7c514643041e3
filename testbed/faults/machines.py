"""Faults of machines: what carries the emulated places loses its power."""

from __future__ import annotations

from dataclasses import dataclass

from testbed.faults.effects import Effect, PowerOffMachine
from testbed.objects.places import Topology


@dataclass(frozen=True, slots=True)
class MachinePowerOff:
    """Powers off one real machine, with all that runs on it. There is nothing to undo: it stays off."""

    machine: str
    command: tuple[str, ...]

    def effects(self, topology: Topology) -> tuple[Effect, ...]:
        return (PowerOffMachine(self.machine, self.command),)
