"""What faults are done to: routes every effect to the actors and the machine that carry it out, and says what it hit.

Which effects a fault has is `faults`, when they are due is who injects them; how one is felt is each actor's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from itertools import groupby

from testbed.emulation.driver.fleet import Fleet
from testbed.emulation.driver.member import MachineLost, Resident, ask_all
from testbed.faults.effects import (
    CutMasterPower,
    CutPower,
    Effect,
    ImpairLinks,
    KillMaster,
    KillPods,
    PauseMaster,
    PowerOffMachine,
)
from testbed.faults.impact import Impact
from testbed.faults.links import cut_off
from testbed.network.links import LinkTable
from testbed.objects.core import Pod
from testbed.objects.places import Topology

FAULT_LEAD_S = 0.3
"""How long before its time a fault is announced to its victims."""


class AnnouncedLinks:
    """Which links an impairment makes worse. Announce what is due, in order of time and reverts first.

    It is judged by what the links were before the moment at which it comes: what begins then is not there before.
    """

    def __init__(self, topology: Topology) -> None:
        self._table = LinkTable(topology)
        self._beginning: list[tuple[float, str, ImpairLinks]] = []

    def impair(self, fault: str, effect: ImpairLinks, due_s: float) -> tuple[tuple[str, str], ...]:
        """The links that are worse for it. One that is cut already is not."""
        self._reach(due_s)
        self._beginning.append((due_s, fault, effect))
        return self._table.worsened(effect.pairs, effect.effect)

    def lift(self, fault: str, due_s: float) -> None:
        self._reach(due_s)
        self._table.lift(fault)

    def _reach(self, due_s: float) -> None:
        for begun_s, fault, effect in self._beginning:
            if begun_s < due_s:
                self._table.impose(fault, effect.pairs, effect.effect)
        self._beginning = [begun for begun in self._beginning if begun[0] >= due_s]


class EmulatedWorld:
    """The actors and machines of a run. Every method that acts returns when the effect is there.

    Times given and returned are the driver's monotonic seconds; on the way they become those of each actor's machine.
    Call FAULT_LEAD_S ahead: every victim waits for the time by itself, so that no way to it counts.
    """

    def __init__(
        self,
        topology: Topology,
        fleet: Fleet,
        agents: Mapping[str, Resident],
        masters: Mapping[str, Resident],
        others_with_links: Sequence[Resident],
    ) -> None:
        """`agents` are those of the nodes, by name, `masters` by their places."""
        self._topology = topology
        self._fleet = fleet
        self._agents = agents
        self._masters = masters
        self._with_links = [*others_with_links, *masters.values(), *agents.values()]
        self._links = AnnouncedLinks(topology)
        self._doomed: set[str] = set()
        """Pods that a kill has chosen and not yet killed: of several kills at one moment each takes others."""

    async def apply(self, fault: str, effects: Sequence[Effect], due_s: float) -> Impact:
        """Put the effects in force under the fault's name: kind by kind in the given order, those of a kind at once.

        Raises PowerOffFailed, MachineLost or ActorLost.
        """
        worse = tuple(
            f"{source} > {destination}"
            for effect in effects
            if isinstance(effect, ImpairLinks)
            for source, destination in self._links.impair(fault, effect, due_s)
            if not (self._is_off(source) or self._is_off(destination))
        )
        kinds = []
        for _, group in groupby(effects, key=type):
            impacts = await asyncio.gather(*(self._apply(fault, effect, due_s, worse) for effect in group))
            kinds.append(Impact.all(impacts))
        # It is felt from the first kind on, and means the victims of the last: processes die behind silenced links.
        felt_s, last = kinds[0].at_s, kinds[-1]
        kills = Impact.all(kinds).killed_proxies
        return Impact(felt_s, kills, last.victims, last.hit_nothing, last.by_command, last.cut_off)

    async def revert(self, fault: str, effects: Sequence[Effect], due_s: float) -> float:
        """Take them back, in the same order; returns since when. Raises MachineLost or ActorLost."""
        self._links.lift(fault, due_s)
        times = [
            max(await asyncio.gather(*(self._revert(fault, effect, due_s) for effect in group)))
            for _, group in groupby(effects, key=type)
        ]
        return times[0]

    async def _apply(self, fault: str, effect: Effect, due_s: float, worse: tuple[str, ...]) -> Impact:
        match effect:
            case ImpairLinks(pairs, what):
                at_s = await self._everywhere("impose", due_s, fault, pairs, what)
                why = "" if worse else "the links that it means were cut already, or no worse for it"
                return Impact(at_s, victims=worse, hit_nothing=why, cut_off=cut_off(effect, self._topology.masters))
            case CutPower(node) if self._is_off(node):
                return Impact(due_s, hit_nothing=f"the machine of node {node} was off already")
            case CutPower(node):
                agent = self._agents[node]
                at_remote_s, killed = await agent.ask("cut_power", fault)
                at_s = agent.machine.clock.to_local(at_remote_s)
                return Impact(at_s, tuple((pod, at_s) for pod in killed), (node,))
            case KillPods():
                return await self._kill(effect, due_s)
            case KillMaster(place) | PauseMaster(place):
                how = ("kill",) if isinstance(effect, KillMaster) else ("pause", fault)
                done_s = await self._at(self._masters[place], how[0], due_s, *how[1:])
                why = "" if done_s is not None else f"no master was running at {place}"
                return Impact(done_s or due_s, victims=() if why else (place,), hit_nothing=why)
            case CutMasterPower(place) if self._is_off(place):
                return Impact(due_s, hit_nothing=f"the machine of {place} was off already")
            case CutMasterPower(place):
                at_s = self._masters[place].machine.clock.to_local(await self._masters[place].ask("cut_power", fault))
                return Impact(at_s, victims=(place,))
            case PowerOffMachine():
                at_s = await self._fleet.power_off(effect, due_s)
                return Impact(at_s, victims=(effect.machine,), by_command=True)

    async def _revert(self, fault: str, effect: Effect, due_s: float) -> float:
        match effect:
            case ImpairLinks():
                return await self._everywhere("lift", due_s, fault)
            case CutPower(node) if not self._is_off(node):
                agent = self._agents[node]
                return agent.machine.clock.to_local(await agent.ask("restore_power", fault))
            case CutMasterPower(place) if not self._is_off(place):
                master = self._masters[place]
                return master.machine.clock.to_local(await master.ask("restore_power", fault))
            case PauseMaster(place):
                return await self._at(self._masters[place], "resume", due_s, fault) or due_s
            case _:
                return due_s

    async def _kill(self, effect: KillPods, due_s: float) -> Impact:
        victims = await self._victims(effect)
        times = await asyncio.gather(
            *(self._at(self._agents[node], "kill_pod", due_s, pod.name) for pod, node in victims)
        )
        self._doomed.difference_update(pod.name for pod, _ in victims)
        killed = [(pod, at_s) for (pod, _), at_s in zip(victims, times, strict=True) if at_s is not None]
        return Impact(
            max((at_s for _, at_s in killed), default=due_s),
            tuple((pod.name, at_s) for pod, at_s in killed if pod.template.has_proxy),
            tuple(pod.name for pod, _ in killed),
            "" if killed else _nobody(effect, victims),
        )

    async def _victims(self, effect: KillPods) -> list[tuple[Pod, str]]:
        """Pods to kill with their nodes. Which pods run where is asked of the world, not of the master's view of it."""
        running = await ask_all("running_pods", self._agents.values())
        nodes = {id(agent): node for node, agent in self._agents.items()}
        found = [
            (pod, node)
            for agent, pods in running
            for node in [nodes[id(agent)]]
            for pod in pods
            if pod.name not in self._doomed
            and (effect.pod is None or pod.name == effect.pod)
            and (effect.service is None or pod.template.service == effect.service)
            and (effect.zone is None or self._topology.place(node).locality.zone == effect.zone)
        ]
        victims = sorted(found, key=lambda victim: victim[0].name)[: effect.count]
        self._doomed.update(pod.name for pod, _ in victims)
        return victims

    async def _everywhere(self, method: str, due_s: float, *arguments: object) -> float:
        times = await asyncio.gather(*(self._at(each, method, due_s, *arguments) for each in self._with_links))
        return max((at_s for at_s in times if at_s is not None), default=due_s)

    @staticmethod
    async def _at(resident: Resident, method: str, due_s: float, *arguments: object) -> float | None:
        """When it was done, or None where there was nothing left to do it to, as after a power-off on purpose."""
        clock = resident.machine.clock
        try:
            at_s: float | None = await resident.ask(method, *arguments, clock.to_remote(due_s), together=True)
            return None if at_s is None else clock.to_local(at_s)
        except MachineLost:
            if resident.machine.powered_off:
                return None
            raise

    def _is_off(self, place: str) -> bool:
        """Whether the machine of a place was powered off."""
        return self._fleet.of(place).powered_off


def _nobody(effect: KillPods, chosen: Sequence[tuple[Pod, str]]) -> str:
    if chosen:
        names = ", ".join(pod.name for pod, _ in chosen)
        return f"{names} ended between being chosen and being killed"
    where = "" if effect.zone is None else f" in {effect.zone}"
    which = f"pod {effect.pod} was not running" if effect.service is None else f"no pod of {effect.service} was running"
    return which + where
