"""The faults of a scenario, on time: announced ahead, and each injected whether or not others could be.

What a fault is, and when it is due, is `faults`; how it is injected is `session`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Protocol

from testbed.emulation.actors.vigil import ActorLost, in_short
from testbed.emulation.driver.member import MachineLost
from testbed.emulation.driver.power_off import PowerOffFailed
from testbed.emulation.driver.world import FAULT_LEAD_S
from testbed.faults.effects import Effect
from testbed.faults.timeline import ScheduledFault, Step, Timeline
from testbed.objects.places import Topology


class Breakable(Protocol):
    """What faults are injected into: a Session. Monotonic seconds."""

    async def inject(self, fault: str, effects: Sequence[Effect], due_s: float) -> None:
        """Called in order of `due_s`, for all that is due at one moment before any of it is there."""
        ...

    async def heal(self, fault: str, due_s: float) -> None: ...


class Injection:
    """Faults count from `t0_s`, monotonic seconds."""

    def __init__(self, faults: Sequence[ScheduledFault], topology: Topology, session: Breakable, t0_s: float) -> None:
        self._timeline = Timeline(tuple(faults), topology)
        self._session = session
        self._t0_s = t0_s
        self.failure: str | None = None
        """Why a fault or a heal could not be carried out, if so; the others go on."""

    async def carry_out(self) -> None:
        """All of them, each when it is due. What is due at one moment is carried out together."""
        under_way: list[asyncio.Task[None]] = []
        try:
            while (at_s := self._timeline.next_s()) is not None:
                await asyncio.sleep(self._t0_s + at_s - FAULT_LEAD_S - time.monotonic())
                under_way += [asyncio.create_task(self._step(step)) for step in self._timeline.due(at_s)]
            await asyncio.gather(*under_way)
        finally:
            for task in under_way:
                task.cancel()

    async def _step(self, step: Step) -> None:
        due_s = self._t0_s + step.at_s
        try:
            if step.do == "apply":
                await self._session.inject(step.fault, step.effects, due_s)
            else:
                await self._session.heal(step.fault, due_s)
        except (PowerOffFailed, MachineLost, ActorLost) as failure:
            self.failure = self.failure or str(failure)
        except Exception as defect:
            which = step.fault if step.do == "apply" else f"{step.fault}'s heal"
            self.failure = self.failure or f"fault {which} could not be carried out: {in_short(defect)}"
