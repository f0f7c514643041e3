"""The machines of a run, as its driver sees them: which there are, what their clocks show, and which are lost.

Brings their logs and samples home while the run goes on, so that a machine which dies takes little with it. What lives
where is `control.placement`; what a machine does for its places is `machine`.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from ray.exceptions import RayActorError

from testbed.control.placement import Placement, processes
from testbed.emulation.actors.machine import Collected, Machine, Versions
from testbed.emulation.actors.reports import MachineFolders
from testbed.emulation.actors.seam import Actor, SharedProcess, in_process, start_actor, start_in
from testbed.emulation.actors.vigil import ActorLost
from testbed.emulation.driver.member import LOST_AFTER_S, MachineLost, Member, Resident, epoch_offset_s
from testbed.emulation.driver.power_off import ENDS_WITHIN_S, PowerOffCommand, PowerOffFailed, why_not_powered_off
from testbed.emulation.driver.ray_connection import RayMachine
from testbed.emulation.driver.survey import FleetUnfit, Survey
from testbed.emulation.processes.sampler import MachineSample
from testbed.faults.effects import PowerOffMachine
from testbed.network.addresses.backend import AddressesExhausted, NetworkBackend
from testbed.network.addresses.host import HostNetwork
from testbed.network.addresses.loopback import NO_FREE_BLOCK, LoopbackNetwork, candidates
from testbed.network.wire.clock_probe import ClockProbe
from testbed.network.wire.tunnel import Tunnel
from testbed.objects.workloads import CommandWorkload
from testbed.results.tables.clocks import estimate
from testbed.results.tables.facts import MachineFacts
from testbed.scenario import Scenario

T = TypeVar("T")

COLLECT_PERIOD_S = 0.5
INTRODUCTION_TIMEOUT_S = 45.0
FIRST_READINGS_TIMEOUT_S = 10.0
FIRST_READINGS = 5
CLOSE_TIMEOUT_S = 5.0
SILENT_S = 1.0
"""Silence after which a machine that was ordered to power off is taken to have done so."""


class Fleet:
    """Made by `assembled`."""

    def __init__(
        self,
        members: Sequence[Member],
        placement: Placement,
        process_of: Mapping[str, str],
        network: NetworkBackend,
        probe: ClockProbe | None,
    ) -> None:
        self.members = tuple(members)
        self.network = network
        self._by_name = {member.name: member for member in members}
        self._placement = placement
        self._probe = probe
        self._failure: str | None = None
        self._process_of = process_of
        self._sharing = Counter(process_of.values())
        self._shared: dict[str, Actor] = {}
        """Processes that several places share, by the first of these."""

    @classmethod
    @contextlib.asynccontextmanager
    async def assembled(cls, scenario: Scenario, survey: Survey, folders: MachineFolders) -> AsyncIterator[Fleet]:
        """The machines that the scenario needs, ready for its places. `folders` are those of the driver's machine.

        Raises FleetUnfit or AddressesExhausted.
        """
        places, placement = [each.name for each in scenario.topology.places], survey.placement
        members: list[Member] = []
        async with contextlib.AsyncExitStack() as ending:
            ending.push_async_callback(_close, members)
            members += await _introduced(survey.machines, folders)
            await asyncio.gather(*(member.host.ask("start_processes", scenario.topology) for member in members))
            await _in_time(_look_for_programs(scenario, members, placement))
            octet = await _in_time(_reserved_block(members))
            network: NetworkBackend = LoopbackNetwork(octet, places)
            probe = None
            if len(members) > 1:
                tunnels = await _in_time(_open_ingresses(members, placement, network))
                network = HostNetwork(octet, placement, tunnels)
                probe = ClockProbe({member.name: tunnels[member.name] for member in members if not member.here})
                probe.start()
                ending.callback(probe.stop)
            process_of = processes(scenario.topology, scenario.cluster, survey.hosting, placement)
            fleet = cls(members, placement, process_of, network, probe)
            await fleet._first_readings()
            watching = [asyncio.create_task(fleet._watch(member)) for member in members]
            try:
                yield fleet
            finally:
                for task in watching:
                    task.cancel()

    def of(self, place_name: str) -> Member:
        """The machine on which a place lives. Raises KeyError for an unknown place."""
        return self._by_name[self._placement[place_name]]

    def start(
        self,
        kind: type,
        place_name: str,
        *arguments: object,
        title: str,
        broken: Callable[[str], None],
    ) -> Resident:
        """A new actor for a place, on its machine, watched as `title`; `broken` is told what goes wrong with it."""
        member, process = self.of(place_name), self._process_of[place_name]
        if self._sharing[process] == 1:
            return member.resident(start_actor(kind, *arguments, node_id=member.node_id), title, broken)
        if process not in self._shared:
            self._shared[process] = start_actor(SharedProcess, node_id=member.node_id)
        return member.resident(start_in(self._shared[process], kind, *arguments), title, broken)

    @property
    def failure(self) -> str | None:
        """Why the records of a machine do not come home any more, if so."""
        return self._failure or next((member.failure for member in self.members if member.failure is not None), None)

    @property
    def lost(self) -> list[Member]:
        """Members that fell silent though nobody ordered it."""
        return [member for member in self.members if member.lost_s is not None and not member.powered_off]

    def samples(self) -> list[MachineSample]:
        """Of all machines, in the driver's time."""
        return [
            replace(sample, t_monotonic_s=member.clock.to_local(sample.t_monotonic_s))
            for member in self.members
            for sample in member.samples
        ]

    async def start_sampling(self) -> None:
        """From now on machines and their clocks are observed for the tables."""
        await self._everyone("start_sampling")
        self._read_clocks()
        for member in self.members:
            if member.here:
                member.clock = replace(member.clock, epoch_minus_monotonic_s=epoch_offset_s())
            member.first_epoch_offset_s = self._epoch_offset_s(member)

    async def collect(self) -> None:
        """Bring home all logs and samples that there are by now."""
        await asyncio.gather(*(self._collect(member) for member in self.members))
        self._read_clocks()

    async def power_off(self, effect: PowerOffMachine, due_s: float) -> float:
        """Run the effect's command at `due_s` and wait for the silence; returns since when it lasts.

        The time is that of the last sign of life, or of the order if that was later. Raises PowerOffFailed.
        """
        if (why := why_not_powered_off(effect, [each.ray_machine for each in self.members])) is not None:
            raise PowerOffFailed(why)
        member = next(each for each in self.members if effect.machine in (each.name, each.address))
        await asyncio.sleep(due_s - time.monotonic())
        ordered_s = time.monotonic()
        member.powered_off = True
        try:
            async with PowerOffCommand(effect) as command:
                while self._last_answer_s(member) > time.monotonic() - SILENT_S:
                    command.check()
                    if time.monotonic() > ordered_s + ENDS_WITHIN_S:
                        raise PowerOffFailed(f"{member.name} still answers {ENDS_WITHIN_S:g} s after `{command.words}`")
                    await asyncio.sleep(0.1)
        except PowerOffFailed:
            member.powered_off = False
            raise
        at_s = max(ordered_s, self._last_answer_s(member))
        member.lose(at_s)
        return at_s

    def facts(self, t0_s: float) -> tuple[MachineFacts, ...]:
        """What the run has to know about its machines; times since `t0_s`."""
        places: dict[str, list[str]] = {member.name: [] for member in self.members}
        for place_name, machine in self._placement.items():
            places[machine].append(place_name)
        return tuple(
            MachineFacts(
                name=member.name,
                hardware=member.introduction.hardware,
                software=str(member.introduction.versions),
                places=tuple(places[member.name]),
                epoch_step_s=self._epoch_offset_s(member) - member.first_epoch_offset_s,
                clock_offset_s=member.clock.offset_s,
                clock_drift=member.clock.drift,
                clock_error_s=member.clock.error_s,
                lost_s=None if member.lost_s is None else member.lost_s - t0_s,
                records_until_s=None if member.lost_s is None else member.collected_s - t0_s,
                powered_off=member.powered_off,
            )
            for member in self.members
        )

    async def _everyone(self, method: str, *arguments: object) -> None:
        living = [member for member in self.members if member.lost_s is None]
        await asyncio.gather(*(member.host.ask(method, *arguments) for member in living))

    async def _first_readings(self) -> None:
        """Wait until every clock was read a few times. Raises FleetUnfit for a machine that does not answer."""
        if self._probe is None:
            return
        deadline_s = time.monotonic() + FIRST_READINGS_TIMEOUT_S
        others = [member for member in self.members if not member.here]
        while missing := [each for each in others if len(self._probe.readings(each.name)) < FIRST_READINGS]:
            if time.monotonic() > deadline_s:
                names = ", ".join(f"{member.name} ({member.address})" for member in missing)
                raise FleetUnfit(
                    f"no answer over the network from {names}: let the machines reach each other's TCP ports"
                )
            await asyncio.sleep(0.05)
        self._read_clocks()

    async def _watch(self, member: Member) -> None:
        """Collect from a machine until it is lost, and find out when that is."""
        collecting: asyncio.Task[None] | None = None
        try:
            while member.lost_s is None:
                await asyncio.sleep(COLLECT_PERIOD_S)
                if not member.here and self._last_answer_s(member) < time.monotonic() - LOST_AFTER_S:
                    member.lose(self._last_answer_s(member))
                self._read_clock(member)
                if collecting is not None and collecting.done():
                    collecting.result()
                    collecting = None
                if collecting is None:
                    collecting = asyncio.create_task(self._collect(member))
        except Exception as error:
            self._failure = f"the records of machine {member.name} cannot be kept: {error}"

    async def _collect(self, member: Member) -> None:
        async with member.collecting:
            more = member.lost_s is None
            while more:
                asked_s = time.monotonic()
                try:
                    collected: Collected = await member.host.ask("collect", member.have)
                except (MachineLost, ActorLost):
                    return
                member.samples += collected.samples
                await asyncio.to_thread(_write, self.driver.folders.logs, collected)
                for piece in collected.pieces:
                    member.have[piece.name] = (piece.inode, piece.offset + len(piece.data))
                member.collected_s = asked_s
                more = collected.more

    @property
    def driver(self) -> Member:
        return next(member for member in self.members if member.here)

    def _last_answer_s(self, member: Member) -> float:
        assert self._probe is not None
        answered_s = self._probe.last_answer_s(member.name)
        assert answered_s is not None, "first readings were waited for"
        return answered_s

    def _read_clocks(self) -> None:
        for member in self.members:
            self._read_clock(member)

    def _read_clock(self, member: Member) -> None:
        if self._probe is not None and not member.here:
            member.clock = estimate(self._probe.readings(member.name))

    def _epoch_offset_s(self, member: Member) -> float:
        if self._probe is None or member.here:
            return epoch_offset_s()
        newest = self._probe.readings(member.name)[-FIRST_READINGS:]
        return estimate(newest).epoch_minus_monotonic_s


async def _close(members: Sequence[Member]) -> None:
    for member in members:
        member.dismiss()
    closing = (asyncio.wait_for(member.host.ask("close"), CLOSE_TIMEOUT_S) for member in members)
    await asyncio.gather(*closing, return_exceptions=True)


async def _in_time(work: Coroutine[Any, Any, T]) -> T:
    """Nobody watches the machines yet. Raises FleetUnfit for one that does not answer."""
    try:
        return await asyncio.wait_for(work, INTRODUCTION_TIMEOUT_S)
    except TimeoutError:
        raise FleetUnfit(f"a machine did not answer within {INTRODUCTION_TIMEOUT_S:g} s") from None


async def _introduced(machines: Sequence[RayMachine], folders: MachineFolders) -> list[Member]:
    """A Machine on each, all of the same versions. Raises FleetUnfit."""
    actors = [
        in_process(Machine, machine.name, folders.run_id, folders)
        if machine.is_driver
        else start_actor(Machine, machine.name, folders.run_id, node_id=machine.node_id)
        for machine in machines
    ]
    answers = await asyncio.gather(
        *(asyncio.wait_for(actor.introduce.remote(), INTRODUCTION_TIMEOUT_S) for actor in actors),
        return_exceptions=True,
    )
    ours = Versions.here()
    problems = []
    members: list[Member] = []
    for machine, actor, answer in zip(machines, actors, answers, strict=True):
        if isinstance(answer, TimeoutError):
            problems.append(
                f"machine {machine.name} ({machine.address}) did not start a process within "
                f"{INTRODUCTION_TIMEOUT_S:g} s: is it still there?"
            )
        elif isinstance(answer, RayActorError):
            reason = f"Ray could start no process there, is it reachable? ({_reason(answer)})"
            problems.append(f"machine {machine.name} ({machine.address}) cannot take part: {reason}")
        elif isinstance(answer, BaseException):
            problems.append(f"machine {machine.name} ({machine.address}) cannot take part: {_reason(answer)}")
        elif answer.versions != ours:
            problems.append(
                f"machine {machine.name} ({machine.address}) has {answer.versions}, but this command has {ours}: "
                "install the same on every machine"
            )
        else:
            members.append(Member(machine, actor, answer, here=machine.is_driver))
    if problems:
        raise FleetUnfit("\n".join(problems))
    return members


async def _look_for_programs(scenario: Scenario, members: Sequence[Member], placement: Placement) -> None:
    """Raises FleetUnfit where a machine lacks the program of a pod that may come to one of its nodes."""
    problems: list[str] = []
    for deployment in scenario.cluster.deployments:
        template = deployment.template
        if isinstance(template.workload, CommandWorkload):
            nodes = [n.name for n in scenario.topology.nodes if not template.zones or n.locality.zone in template.zones]
            machines = {placement[node] for node in nodes}
            asked = (template.workload.command[0], dict(template.workload.env).get("PATH"))
            for member in (member for member in members if member.name in machines):
                reason = await member.host.ask("why_not_startable", *asked)
                if reason is not None:
                    problems.append(f"machine {member.name} cannot run service {deployment.name}: {reason}")
    if problems:
        raise FleetUnfit("\n".join(problems))


async def _reserved_block(members: Sequence[Member]) -> int:
    """Second octet of a block that is free on every machine, now held there. Raises AddressesExhausted."""
    for octet in candidates():
        held = await asyncio.gather(*(member.host.ask("reserve", octet) for member in members))
        if all(held):
            return octet
        await asyncio.gather(*(member.host.ask("release") for member in members))
    raise AddressesExhausted(NO_FREE_BLOCK)


async def _open_ingresses(
    members: Sequence[Member], placement: Placement, network: NetworkBackend
) -> Mapping[str, Tunnel]:
    """Raises FleetUnfit."""
    token = secrets.token_hex(32)
    listening = await asyncio.gather(
        *(
            member.host.ask(
                "open_ingress",
                member.address,
                token,
                [network.node_network(name) for name, machine in placement.items() if machine == member.name],
            )
            for member in members
        ),
        return_exceptions=True,
    )
    tunnels = {}
    for member, address in zip(members, listening, strict=True):
        if isinstance(address, BaseException):
            raise FleetUnfit(f"machine {member.name} cannot listen at {member.address}: {_reason(address)}")
        tunnels[member.name] = Tunnel(address, token)
    return tunnels


def _reason(error: BaseException) -> str:
    """The last line of what Ray makes of an exception elsewhere."""
    return (str(error).strip() or type(error).__name__).splitlines()[-1]


def _write(logs: Path, collected: Collected) -> None:
    for piece in collected.pieces:
        with (logs / piece.name).open("r+b" if piece.offset else "wb") as file:
            file.seek(piece.offset)
            file.write(piece.data)
