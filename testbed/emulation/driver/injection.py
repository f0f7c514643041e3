"""The faults of a scenario, on time: announced ahead, carried out whether or not others are, and what came of each.

What a fault is, and when it is due, is `faults`; how its effects reach their victims is `world`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from testbed.emulation.actors.vigil import ActorLost, in_short
from testbed.emulation.driver.member import MachineLost
from testbed.emulation.driver.power_off import PowerOffFailed
from testbed.emulation.driver.world import Impact
from testbed.faults.effects import Effect
from testbed.faults.timeline import ScheduledFault, Step, Timeline
from testbed.objects.places import Topology
from testbed.results.tables.facts import AppliedFault, named

FAULT_LEAD_S = 0.3
"""How long before its time a fault is announced to its victims."""
OVERDUE_S = 1.0
"""More than any fault or heal is late that will still come."""


class World(Protocol):
    """What faults are done to. Monotonic seconds."""

    async def apply(self, fault: str, effects: Sequence[Effect], due_s: float) -> Impact:
        """Called in order of `due_s`, for all that is due at one moment before any of it is there."""
        ...

    async def revert(self, fault: str, effects: Sequence[Effect], due_s: float) -> float: ...


@dataclass(slots=True)
class _Course:
    """What came of one fault. Monotonic seconds."""

    impact: Impact | None = None
    healed_s: float | None = None


class Injection:
    """`tell(t_s, fault, what)` hears of what happens, in seconds since the load began."""

    def __init__(
        self,
        faults: Sequence[ScheduledFault],
        topology: Topology,
        world: World,
        t0_s: float,
        tell: Callable[[float, str, str], None],
    ) -> None:
        self._faults = tuple(faults)
        self._timeline = Timeline(self._faults, topology)
        self._world = world
        self._t0_s = t0_s
        self._tell = tell
        self._courses = {fault.name: _Course() for fault in faults}
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

    def overdue(self, t_s: float) -> str | None:
        """Which fault or heal was due for long, and has not come."""
        for fault in self._faults:
            course = self._courses[fault.name]
            if course.impact is None and fault.at_s < t_s - OVERDUE_S:
                return f"fault {fault.name} was due at {fault.at_s:g} s and has not come"
            if fault.heal_s is not None and course.healed_s is None and fault.heal_s < t_s - OVERDUE_S:
                return f"the heal of fault {fault.name} was due at {fault.heal_s:g} s and has not come"
        return None

    def applied(self) -> tuple[AppliedFault, ...]:
        """Every fault that came."""
        return tuple(
            AppliedFault(
                fault.name,
                fault.at_s,
                course.impact.at_s - self._t0_s,
                None if course.healed_s is None else course.healed_s - self._t0_s,
                fault.heal_s,
                instant=fault.for_s is None,
                by_command=course.impact.by_command,
                victims=course.impact.victims,
                hit_nothing=course.impact.hit_nothing,
            )
            for fault in self._faults
            for course in (self._courses[fault.name],)
            if course.impact is not None
        )

    def killed_proxies(self) -> tuple[tuple[str, float], ...]:
        """Pods whose proxies faults have killed, and when, in seconds since the load began."""
        impacts = [course.impact for course in self._courses.values() if course.impact is not None]
        return tuple((pod, at_s - self._t0_s) for impact in impacts for pod, at_s in impact.killed_proxies)

    async def _step(self, step: Step) -> None:
        due_s = self._t0_s + step.at_s
        try:
            if step.do == "apply":
                self._came(step.fault, await self._world.apply(step.fault, step.effects, due_s))
            else:
                self._healed(step.fault, await self._world.revert(step.fault, step.effects, due_s))
        except (PowerOffFailed, MachineLost, ActorLost) as failure:
            self.failure = self.failure or str(failure)
        except Exception as defect:
            which = step.fault if step.do == "apply" else f"{step.fault}'s heal"
            self.failure = self.failure or f"fault {which} could not be carried out: {in_short(defect)}"

    def _came(self, fault: str, impact: Impact) -> None:
        self._courses[fault].impact = impact
        what = f"applied to {named(impact.victims)}" if impact.victims else f"hit nothing: {impact.hit_nothing}"
        self._tell(impact.at_s - self._t0_s, fault, what)

    def _healed(self, fault: str, at_s: float) -> None:
        self._courses[fault].healed_s = at_s
        self._tell(at_s - self._t0_s, fault, "healed")
