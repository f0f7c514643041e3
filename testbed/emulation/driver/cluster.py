"""The emulated cluster as a set of actors: brings it up, loads it, collects what it recorded."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from testbed.control.cells.promotion import Promotion
from testbed.control.cells.store_orders import StoreAnswer, StoreOrder
from testbed.control.overview import Behind, Overview
from testbed.control.placement import Hosting
from testbed.control.waiting import Waiting, grouped
from testbed.emulation.actors.load_generator import LoadGenerator
from testbed.emulation.actors.master import Master
from testbed.emulation.actors.network_card import NetworkCard
from testbed.emulation.actors.node_agent import NodeAgent
from testbed.emulation.actors.reports import Push, Readiness, Recorded
from testbed.emulation.driver.clients import Clients
from testbed.emulation.driver.events import ComingUp, RecordsCollected
from testbed.emulation.driver.fleet import Fleet
from testbed.emulation.driver.masters import Masters, until_answered
from testbed.emulation.driver.member import Member, Resident, ask_all
from testbed.emulation.driver.world import EmulatedWorld
from testbed.network.links import LinkSample
from testbed.objects.addresses import PodAddress
from testbed.objects.cells import Layer, PartitionMap
from testbed.objects.cluster import Declared
from testbed.objects.core import Pod as PodObject
from testbed.objects.places import CONTROL_PLANE, clients_of
from testbed.objects.workloads import StoreWorkload
from testbed.scenario import Scenario

READINESS_POLL_S = 0.1
ENDS_WITHIN_S = 120.0
"""Every process is killed two seconds after it was asked to end, but dozens of them share the cores for that."""
PROMOTED_WITHIN_S = 5.0
ORDERED_WITHIN_S = 1.0


class BringUpFailed(Exception):
    """The cluster did not become ready in time; the message names what did not, and why."""


@dataclass(frozen=True, slots=True)
class ClusterRecords:
    """What the cluster knows about itself at the end. Times in the driver's monotonic seconds."""

    events: list[Recorded]
    pushes: list[Push]
    links: list[LinkSample]
    pods: tuple[tuple[PodObject, float], ...]
    """Every pod that ever ran, and when it first was started."""
    pushed_resources: tuple[bytes, ...] = ()
    """What the pushes refer to, each for `pushed.lines`, with numbers that go on from one to the next."""


class EmulatedCluster:
    """Handles of all actors of a run. Every method that acts returns when the effect is there.

    Times given and returned are the driver's monotonic seconds; on the way they become those of each actor's machine.
    """

    def __init__(self, scenario: Scenario, fleet: Fleet, hosting: Hosting) -> None:
        self._scenario = scenario
        self._fleet = fleet
        topology, timings = scenario.topology, scenario.cluster.timings
        self._failures: list[str] = []
        zones = dict.fromkeys(source.zone for source in scenario.load.sources)
        # Containers are told theirs, and what masters tell each other is pickled.
        peer_secret, store_secret = secrets.token_bytes(32), secrets.token_hex(32)
        residents = {
            place: fleet.start(
                Master,
                place,
                scenario.cluster,
                topology,
                NetworkCard(place, topology, fleet.network, fleet.of(place).folders.sockets, scenario.seed),
                [clients_of(zone) for zone in zones],
                fleet.of(place).folders,
                scenario.seed,
                [other for other in topology.masters if other != place],
                peer_secret,
                title="the master" if place == CONTROL_PLANE else f"the master at {place}",
                broken=self._failures.append,
            )
            for place in topology.masters
        }
        self._masters = Masters(residents)
        masters = {place: resident.actor for place, resident in residents.items()}
        self._agents: dict[str, Resident] = {
            place.name: fleet.start(
                NodeAgent,
                place.name,
                place.name,
                topology,
                masters,
                timings,
                fleet.network,
                fleet.of(place.name).folders,
                scenario.seed,
                [service.name for service in scenario.cluster.services if scenario.cluster.mesh_mode == "none"],
                {each.name: each.capture_port for each in scenario.cluster.services if each.capture_port is not None},
                hosting,
                store_secret,
                title=f"the agent of node {place.name}",
                broken=self._failures.append,
            )
            for place in topology.nodes
        }
        generators = {
            zone: fleet.start(
                LoadGenerator,
                clients_of(zone),
                zone,
                topology,
                masters,
                timings,
                fleet.network,
                scenario.load,
                fleet.of(clients_of(zone)).folders,
                scenario.seed,
                title=f"the load generator of zone {zone}",
                broken=self._failures.append,
            )
            for zone in zones
        }
        self.clients = Clients(scenario.load, generators)
        self._events: list[tuple[Member, Recorded]] = []
        self._links: list[tuple[Member, LinkSample]] = []
        self._ordered: dict[str, PodObject] = {}
        self._starts: dict[str, tuple[PodAddress, float]] = {}
        """Where pods were started, and when first, by the clock of their machine."""
        self.world = EmulatedWorld(
            topology,
            fleet,
            self._agents,
            residents,
            [*self._hosts, *self.clients.all],
        )

    @property
    def failure(self) -> str | None:
        """What ended or went wrong, if something did, without which the cluster is not what it should be."""
        return "; ".join(dict.fromkeys(self._failures)) or None

    async def bring_up(self, show: Callable[[ComingUp], None]) -> None:
        """Boot everything and wait until all is as declared; `show` is told again and again how far that is.

        Raises BringUpFailed when nothing has come further for as long as the scenario says, and at once when something
        is lost.
        """
        await self._as_declared(self._boot(), show)

    async def apply(self, objects: Sequence[Declared]) -> None:
        """Create or change objects, and wait until all is as declared.

        Raises Refused, then nothing has changed; else as `bring_up` does.
        """
        await self._as_declared(self._masters.ask_leader("apply", objects))

    async def put(self, objects: Sequence[Declared], gone: Sequence[Declared] = ()) -> None:
        """Create or change objects, and delete others, without waiting for what follows.

        Raises Refused: for one to create or change, then nothing has changed; and ControlPlaneDown.
        """
        await self._masters.ask_leader("apply", objects)
        for each in gone:
            await self._masters.ask_leader("delete", type(each), each.name)

    async def put_map(self, cell_map: PartitionMap) -> None:
        """The same with a partition map, as an operator does it: until a control plane has taken it. Raises Refused."""
        await until_answered(self._masters.ask_leader, "apply", [cell_map])

    async def settle(self) -> None:
        """Wait until all is as declared. Raises BringUpFailed."""
        await self._as_declared(asyncio.sleep(0))

    async def overview(self) -> Overview:
        """Every node and pod, as the control plane knows them. Raises ControlPlaneDown."""
        overview: Overview = await self._masters.ask_knowing("overview")
        return overview

    async def behind(self, layer: Layer) -> Behind:
        """Which proxies of a layer do not have all that they should have."""
        behind: Behind = await until_answered(self._masters.ask_knowing, "behind", layer)
        return behind

    async def delete(self, kind: type[Declared], name: str) -> None:
        """The same with an object that is there no longer."""
        await self._as_declared(self._masters.ask_leader("delete", kind, name))

    async def _as_declared(
        self, change: Coroutine[Any, Any, None], show: Callable[[ComingUp], None] = lambda _: None
    ) -> None:
        best, since_s = 0, time.monotonic()
        changing = asyncio.create_task(change)
        readiness: Readiness | None = None
        try:
            while True:
                if changing.done():
                    changing.result()
                    readiness = await until_answered(self._masters.ask_knowing, "readiness")
                    if readiness.ready >= readiness.total and not readiness.waiting_for:
                        return
                show(self._how_far(readiness))
                if (steps := self._steps(readiness)) > best:
                    best, since_s = steps, time.monotonic()
                if self._fleet.lost:
                    raise BringUpFailed(f"machine {self._fleet.lost[0].name} was lost while the cluster came up")
                if broken := self.failure or self._fleet.failure:
                    raise BringUpFailed(broken)
                if time.monotonic() > since_s + self._scenario.ready_timeout_s:
                    raise BringUpFailed(await self._why_not_ready(readiness))
                await asyncio.sleep(READINESS_POLL_S)
        finally:
            changing.cancel()

    async def _boot(self) -> None:
        told = self._agents | self.clients.by_place
        actors = {place: resident.actor for place, resident in told.items()}
        connecting = (
            master.ask("connect", actors, self._clock_offsets_s(master, told)) for master in self._masters.all
        )
        await asyncio.gather(*connecting)
        await self._masters.ask_leader("declare")
        await ask_all("boot", [*self._agents.values(), *self.clients.all], together=False)

    @property
    def _residents(self) -> list[Resident]:
        return [*self._masters.all, *self._agents.values(), *self.clients.all]

    @property
    def _hosts(self) -> list[Resident]:
        """The processes of the testbed, one on each machine, which have the link relays."""
        return [member.host for member in self._fleet.members]

    def _steps(self, readiness: Readiness | None) -> int:
        """A number that is larger the further the cluster has come."""
        answering = sum(resident.has_answered for resident in self._residents)
        return answering + (0 if readiness is None else readiness.started + readiness.ready)

    def _how_far(self, readiness: Readiness | None) -> ComingUp:
        residents = self._residents
        return ComingUp(sum(resident.has_answered for resident in residents), len(residents), readiness)

    @staticmethod
    def _clock_offsets_s(master: Resident, residents: Mapping[str, Resident]) -> dict[str, float]:
        """The clock of each one's machine minus the master's."""
        now_s = time.monotonic()
        master_s = master.machine.clock.to_remote(now_s)
        return {place: each.machine.clock.to_remote(now_s) - master_s for place, each in residents.items()}

    async def promote(self, promotions: Sequence[Promotion]) -> tuple[str, ...]:
        """Ask all replicas of stores for these leaders. Returns the replicas that do not know by then that they lead;
        raises MachineLost or ActorLost."""
        running = await ask_all("running_pods", self._agents.values())
        asked = [
            (agent, pod.name, promotion)
            for agent, pods in running
            for pod in pods
            for promotion in promotions
            if pod.template.service == promotion.service and isinstance(pod.template.workload, StoreWorkload)
        ]
        known = await asyncio.gather(
            *(agent.ask("prefer_leader", pod, promotion, PROMOTED_WITHIN_S) for agent, pod, promotion in asked)
        )
        return tuple(dict.fromkeys(pod for (_, pod, _), knows in zip(asked, known, strict=True) if not knows))

    async def order(self, orders: Sequence[StoreOrder]) -> Mapping[StoreOrder, StoreAnswer]:
        """Tell replicas of asynchronous stores. Who does not run has done nothing. Raises MachineLost or ActorLost."""
        running = await ask_all("running_pods", self._agents.values())
        asked: list[tuple[Resident, str, list[StoreOrder]]] = []
        for agent, pods in running:
            for pod in pods:
                name, service = pod.deployment, pod.template.service
                own = [order for order in orders if (order.service, order.replica) == (service, name)]
                if own:
                    asked.append((agent, pod.name, own))
        answers = await asyncio.gather(
            *(agent.ask("order_store", pod, [each.what for each in own], ORDERED_WITHIN_S) for agent, pod, own in asked)
        )
        found = dict.fromkeys(orders, StoreAnswer(False))
        for (_, _, own), given in zip(asked, answers, strict=True):
            found |= zip(own, given, strict=True)
        return found

    async def collect(self) -> RecordsCollected:
        """Bring home what was recorded since the last call, so that a machine that dies takes little with it."""
        new = [
            (resident.machine, event)
            for resident, events in await ask_all("records", self._residents)
            for event in events
        ]
        self._events += new
        for host, links in await ask_all("link_samples", self._hosts):
            self._links += [(host.machine, sample) for sample in links]
        for _, pods in await ask_all("pods_ever", self._masters.all):
            ordered, starts = pods
            self._ordered |= ordered
            for name, (address, at_s) in starts.items():
                first_s = self._starts[name][1] if name in self._starts else at_s
                self._starts[name] = address, min(first_s, at_s)
        return RecordsCollected([_here(*each) for each in new], self._pods_here())

    async def records(self) -> ClusterRecords:
        """Everything so far, in the driver's time; without pushes if the master's machine is lost."""
        await self.collect()
        pushes, resources = await self._pushed()
        events = [_here(*each) for each in self._events]
        return ClusterRecords(
            events=sorted(events, key=lambda event: event.t_s),
            pushes=pushes,
            links=[replace(sample, second=machine.clock.to_local(sample.second)) for machine, sample in self._links],
            pods=self._pods_here(),
            pushed_resources=resources,
        )

    async def _pushed(self) -> tuple[list[Push], tuple[bytes, ...]]:
        """Of all masters: each numbers what it has pushed from 0 on, here one goes on where the other ends."""
        by_master = {id(master): found for master, found in await ask_all("pushes", self._masters.all)}
        pushes: list[Push] = []
        resources: list[bytes] = []
        before = 0
        for master, (count, compressed) in await ask_all("pushed_resources", self._masters.all):
            for push in by_master.get(id(master), ()):
                push.sent_s = master.machine.clock.to_local(push.sent_s)
                if push.acked_s is not None:
                    push.acked_s = self._fleet.of(push.place).clock.to_local(push.acked_s)
                push.resources = tuple(before + number for number in push.resources) if before else push.resources
                pushes.append(push)
            resources.append(compressed)
            before += count
        return pushes, tuple(resources)

    def _pods_here(self) -> tuple[tuple[PodObject, float], ...]:
        """In the driver's time."""
        return tuple(
            (replace(pod, address=address), self._fleet.of(pod.node).clock.to_local(at_s))
            for name, (address, at_s) in self._starts.items()
            if (pod := self._ordered.get(name)) is not None and pod.node is not None
        )

    async def shut_down(self) -> None:
        """End every process in good order, so that their logs are whole."""
        await ask_all("shut_down", self._residents, within_s=ENDS_WITHIN_S, together=False)

    async def _why_not_ready(self, readiness: Readiness | None) -> str:
        """What is missing, and the last words of the processes that ended."""
        within = f"and nothing changed for {self._scenario.ready_timeout_s:g} s (spec.controlPlane.readyTimeout)"
        if readiness is None:
            missing = [resident.title for resident in self._residents if not resident.has_answered]
            return "\n  ".join([f"the cluster is not up, {within}. Still waiting for:", *missing])
        records = await self.records()
        last_lines = [
            Waiting("last lines of pod", event.object, event.details["last_lines"])
            for event in {event.object: event for event in records.events if event.reason == "ProcessExited"}.values()
            if event.details["last_lines"]
        ]
        lines = [
            f"{readiness.ready} of {readiness.total} pods are ready, {within}. Still waiting for:",
            *grouped(readiness.waiting_for),
            *grouped(last_lines),
        ]
        return "\n  ".join(lines)


def _here(machine: Member, event: Recorded) -> Recorded:
    """In the driver's time."""
    return replace(event, t_s=machine.clock.to_local(event.t_s))
