"""The emulated cluster as a set of actors: brings it up, does to it what faults say, collects what it recorded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from testbed.control.objects import Pod as PodObject
from testbed.emulation.actors import Actor, start_actor
from testbed.emulation.load_generator import LoadGenerator, LoadProgress
from testbed.emulation.master import Master
from testbed.emulation.node_agent import NodeAgent
from testbed.emulation.reports import Push, Readiness, Recorded
from testbed.faults.actions import Action, BootNode, CrashNode, ImposeOnLinks, KillPod, LiftFromLinks
from testbed.network.links import LinkSample
from testbed.network.loopback import LoopbackNetwork
from testbed.scenario import Scenario

READINESS_POLL_S = 0.1


class BringUpFailed(Exception):
    """The cluster did not become ready in time; the message names what did not, and why."""


@dataclass(frozen=True, slots=True)
class Effect:
    """When the last victim felt it, and the pods whose proxies were killed, and when. Monotonic seconds."""

    at_s: float
    killed_proxies: tuple[tuple[str, float], ...] = ()

    @classmethod
    def all(cls, effects: Sequence[Effect]) -> Effect:
        kills = tuple(kill for effect in effects for kill in effect.killed_proxies)
        return cls(max(effect.at_s for effect in effects), kills)


@dataclass(frozen=True, slots=True)
class ClusterRecords:
    """What the cluster knows about itself at the end. Times in monotonic seconds."""

    events: list[Recorded]
    pushes: list[Push]
    links: list[LinkSample]
    pods: tuple[tuple[PodObject, float], ...]
    """Every pod that ever ran, and when it first was started."""


class EmulatedCluster:
    """Handles of all actors of a run. Every method that acts returns when the effect is there."""

    def __init__(self, scenario: Scenario, network: LoopbackNetwork, log_dir: Path, socket_dir: Path) -> None:
        self._scenario = scenario
        self._master: Actor = start_actor(Master, scenario.cluster, scenario.topology, scenario.control_plane_place)
        self._agents: dict[str, Actor] = {
            place.name: start_actor(
                NodeAgent,
                place.name,
                scenario.topology,
                scenario.control_plane_place,
                scenario.cluster.timings,
                network,
                self._master,
                log_dir,
                socket_dir,
                scenario.seed,
                [service.name for service in scenario.cluster.services if scenario.cluster.mesh_mode == "none"],
            )
            for place in scenario.topology.nodes
        }
        self._load_generators: dict[str, Actor] = {
            zone: start_actor(
                LoadGenerator,
                zone,
                scenario.topology,
                scenario.cluster.timings,
                network,
                scenario.load,
                log_dir,
                scenario.seed,
            )
            for zone in dict.fromkeys(source.zone for source in scenario.load.sources)
        }

    async def bring_up(self, show: Callable[[Readiness], None]) -> None:
        """Boot everything and wait until every pod is ready. Raises BringUpFailed after the scenario's deadline."""
        deadline_s = time.monotonic() + self._scenario.ready_timeout_s
        await self._master.connect.remote(self._agents, list(self._load_generators.values()))
        await self._all("boot", [*self._agents.values(), *self._load_generators.values()])
        while True:
            readiness: Readiness = await self._master.readiness.remote()
            show(readiness)
            if readiness.ready >= readiness.total and not readiness.waiting_for:
                return
            if time.monotonic() > deadline_s:
                raise BringUpFailed(await self._why_not_ready(readiness))
            await asyncio.sleep(READINESS_POLL_S)

    async def carry_out(self, actions: Iterable[Action], due_s: float) -> Effect:
        """Do what a fault asks at `due_s` (monotonic): kinds of action in the given order, victims of one kind at once.

        Call it some tenths of a second ahead: every victim waits for the time by itself, so that no way to it counts.
        """
        effects = []
        for _, group in groupby(actions, key=type):
            effects.append(Effect.all(await asyncio.gather(*(self._carry_out(action, due_s) for action in group))))
        # What follows the first kind of action (processes die behind silenced links) is not felt from outside.
        return Effect(effects[0].at_s, tuple(kill for effect in effects for kill in effect.killed_proxies))

    async def prepare_load(self) -> None:
        await self._all("prepare", self._load_generators.values())

    async def start_load(self, t0_s: float) -> None:
        await self._all("start", self._load_generators.values(), t0_s)

    async def load_progress(self) -> dict[str, LoadProgress]:
        """The newest figures of every origin zone."""
        progress = await self._all("progress", self._load_generators.values())
        return dict(zip(self._load_generators, progress, strict=True))

    async def stop_load(self) -> None:
        await self._all("stop", self._load_generators.values())

    async def records(self) -> ClusterRecords:
        events, pushes = await self._master.records.remote()
        parts = await self._all("records", [*self._agents.values(), *self._load_generators.values()])
        for more_events, _ in parts:
            events.extend(more_events)
        events.sort(key=lambda event: event.t_s)
        return ClusterRecords(
            events=events,
            pushes=pushes,
            links=[sample for _, samples in parts for sample in samples],
            pods=await self._master.pods_ever.remote(),
        )

    async def shut_down(self) -> None:
        """End every process in good order, so that their logs are whole."""
        await self._all("shut_down", [*self._agents.values(), *self._load_generators.values()])

    async def _carry_out(self, action: Action, due_s: float) -> Effect:
        match action:
            case ImposeOnLinks():
                return await self._everywhere("impose", action, due_s)
            case LiftFromLinks():
                return await self._everywhere("lift", action, due_s)
            case CrashNode(node):
                at_s, killed = await self._agents[node].crash.remote()
                return Effect(at_s, tuple((pod, at_s) for pod in killed))
            case BootNode(node):
                return Effect(await self._agents[node].power_on.remote())
            case KillPod():
                victims = await self._victims(action)
                times: list[float] = await asyncio.gather(
                    *(self._agents[node].kill_pod.remote(pod.name, due_s) for pod, node in victims)
                )
                killed_at = zip(victims, times, strict=True)
                proxies = tuple((pod.name, at_s) for (pod, _), at_s in killed_at if pod.template.has_proxy)
                return Effect(max(times, default=due_s), proxies)

    async def _everywhere(self, method: str, action: ImposeOnLinks | LiftFromLinks, due_s: float) -> Effect:
        actors = [self._master, *self._agents.values(), *self._load_generators.values()]
        times: list[float] = await self._all(method, actors, action, due_s)
        return Effect(max(times))

    async def _victims(self, action: KillPod) -> list[tuple[PodObject, str]]:
        """Pods to kill with their nodes. Which pods run where is asked of the world, not of the master's view of it."""
        running = await self._all("running_pods", self._agents.values())
        found = [
            (pod, node)
            for node, pods in zip(self._agents, running, strict=True)
            for pod in pods
            if (action.pod is None or pod.name == action.pod)
            and (action.service is None or pod.template.service == action.service)
            and (action.zone is None or self._scenario.topology.place(node).locality.zone == action.zone)
        ]
        return sorted(found, key=lambda victim: victim[0].name)[: action.count]

    async def _why_not_ready(self, readiness: Readiness) -> str:
        """What is missing, and the last words of the processes that ended."""
        records = await self.records()
        last_lines = {
            event.object: event.details["last_lines"] for event in records.events if event.reason == "ProcessExited"
        }
        lines = [
            f"{readiness.ready} of {readiness.total} pods were ready after {self._scenario.ready_timeout_s:g} s "
            "(spec.controlPlane.readyTimeout). Still waiting for:",
            *readiness.waiting_for,
            *(f"last lines of {pod}: {words}" for pod, words in last_lines.items() if words),
        ]
        return "\n  ".join(lines)

    @staticmethod
    async def _all(method: str, actors: Iterable[Actor], *arguments: object) -> list[Any]:
        calls: list[Awaitable[Any]] = [getattr(actor, method).remote(*arguments) for actor in actors]
        return list(await asyncio.gather(*calls))
