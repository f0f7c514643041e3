"""The faults of a scenario, on time: announced ahead, carried out whether or not others are, and what each of them hit.

What a fault is, is `faults`; how its actions reach their victims is `cluster`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

from testbed.emulation.actors.vigil import ActorLost, in_short
from testbed.emulation.driver.cluster import Effect
from testbed.emulation.driver.member import MachineLost
from testbed.emulation.driver.power_off import PowerOffFailed
from testbed.faults.actions import Action, ImposeOnLinks, LiftFromLinks
from testbed.faults.machines import MachinePowerOff
from testbed.faults.schedule import ScheduledFault, Step, steps
from testbed.network.links import LinkTable
from testbed.objects.places import Topology
from testbed.results.tables.facts import AppliedFault, named

FAULT_LEAD_S = 0.3
"""How long before its time a fault is announced to its victims."""
OVERDUE_S = 1.0
"""More than any fault or heal is late that will still come."""


class World(Protocol):
    """What faults are done to. Monotonic seconds."""

    async def carry_out(self, actions: Sequence[Action], due_s: float) -> Effect: ...

    def is_off(self, place: str) -> bool:
        """Whether the real machine of a place has no power any more."""
        ...


@dataclass(slots=True)
class _Course:
    """What came of one fault. Monotonic seconds."""

    effect: Effect | None = None
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
        self._topology = topology
        self._world = world
        self._t0_s = t0_s
        self._tell = tell
        self._links = LinkTable(topology)
        """As the faults that were announced so far make them."""
        self._courses = {fault.name: _Course() for fault in faults}
        self.failure: str | None = None
        """Why a fault or a heal could not be carried out, if so; the others go on."""

    async def carry_out(self) -> None:
        """All of them, each when it is due. What is due at one moment is carried out together."""
        under_way: list[asyncio.Task[None]] = []
        try:
            for at_s, group in groupby(steps(self._faults, self._topology), key=lambda step: step.at_s):
                await asyncio.sleep(self._t0_s + at_s - FAULT_LEAD_S - time.monotonic())
                due = list(group)
                changed = self._announce(due)
                under_way += [asyncio.create_task(self._step(step, changed.get(step.fault, ()))) for step in due]
            await asyncio.gather(*under_way)
        finally:
            for task in under_way:
                task.cancel()

    def overdue(self, t_s: float) -> str | None:
        """Which fault or heal was due for long, and has not come."""
        for fault in self._faults:
            course = self._courses[fault.name]
            if course.effect is None and fault.at_s < t_s - OVERDUE_S:
                return f"fault {fault.name} was due at {fault.at_s:g} s and has not come"
            heal_s = _heal_s(fault)
            if heal_s is not None and course.healed_s is None and heal_s < t_s - OVERDUE_S:
                return f"the heal of fault {fault.name} was due at {heal_s:g} s and has not come"
        return None

    def applied(self) -> tuple[AppliedFault, ...]:
        """Every fault that came."""
        return tuple(
            AppliedFault(
                fault.name,
                fault.at_s,
                course.effect.at_s - self._t0_s,
                None if course.healed_s is None else course.healed_s - self._t0_s,
                _heal_s(fault),
                instant=fault.for_s is None,
                by_command=isinstance(fault.fault, MachinePowerOff),
                victims=course.effect.victims,
                hit_nothing=course.effect.hit_nothing,
            )
            for fault in self._faults
            for course in (self._courses[fault.name],)
            if course.effect is not None
        )

    def killed_proxies(self) -> tuple[tuple[str, float], ...]:
        """Pods whose proxies faults have killed, and when, in seconds since the load began."""
        effects = [course.effect for course in self._courses.values() if course.effect is not None]
        return tuple((pod, at_s - self._t0_s) for effect in effects for pod, at_s in effect.killed_proxies)

    def _announce(self, due: Sequence[Step]) -> dict[str, tuple[str, ...]]:
        """The links that each fault that begins now changes: what begins with it is not there before it."""
        actions = [(step.fault, action) for step in due for action in step.actions]
        for _, action in actions:
            if isinstance(action, LiftFromLinks):
                self._links.lift(action.fault)
        imposed = [(fault, action) for fault, action in actions if isinstance(action, ImposeOnLinks)]
        changed = {fault: self._changed(action) for fault, action in imposed}
        for _, action in imposed:
            self._links.impose(action.fault, action.pairs, action.effect)
        return changed

    def _changed(self, action: ImposeOnLinks) -> tuple[str, ...]:
        """The links that are worse for it now. One that is cut already is not."""
        open_before = {pair: quality for pair in action.pairs if not (quality := self._links.quality(*pair)).cut}
        self._links.impose(action.fault, action.pairs, action.effect)
        changed = [pair for pair, quality in open_before.items() if self._links.quality(*pair) != quality]
        self._links.lift(action.fault)
        powered = [pair for pair in changed if not any(self._world.is_off(place) for place in pair)]
        return tuple(f"{source} > {destination}" for source, destination in powered)

    async def _step(self, step: Step, changed_links: tuple[str, ...]) -> None:
        try:
            effect = await self._world.carry_out(step.actions, self._t0_s + step.at_s)
        except (PowerOffFailed, MachineLost, ActorLost) as failure:
            self.failure = self.failure or str(failure)
            return
        except Exception as defect:
            which = step.fault if step.phase == "start" else f"{step.fault}'s heal"
            self.failure = self.failure or f"fault {which} could not be carried out: {in_short(defect)}"
            return
        course = self._courses[step.fault]
        if step.phase == "stop":
            course.healed_s = effect.at_s
            self._tell(effect.at_s - self._t0_s, step.fault, "healed")
            return
        if all(isinstance(action, ImposeOnLinks) for action in step.actions):
            why = "" if changed_links else "the links that it means were cut already, or no worse for it"
            effect = Effect(effect.at_s, effect.killed_proxies, changed_links, why)
        course.effect = effect
        what = f"applied to {named(effect.victims)}" if effect.victims else f"hit nothing: {effect.hit_nothing}"
        self._tell(effect.at_s - self._t0_s, step.fault, what)


def _heal_s(fault: ScheduledFault) -> float | None:
    return None if fault.for_s is None else fault.at_s + fault.for_s
