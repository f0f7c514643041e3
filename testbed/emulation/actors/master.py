"""The place of a master, and whoever supervises its process there: hands it what places say, and to places what it
decides, over the emulated links.

Decides nothing, and outlives its process, as a NodeAgent outlives its node: it starts the next one, and it keeps what
was recorded.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from typing import Any

from testbed.control.api_server import Refused
from testbed.control.masters.messages import Serves, Tell
from testbed.control.messages import (
    ConfigAcked,
    ConfigRejected,
    NodeRegistered,
    PodStarted,
    RecordEvent,
    StartPod,
)
from testbed.control.overview import Behind, Overview, Streams
from testbed.emulation.actors.control_channel import ControlChannel
from testbed.emulation.actors.network_card import NetworkCard, Placed
from testbed.emulation.actors.reports import (
    Letter,
    MachineFolders,
    Push,
    Readiness,
    Recorded,
    Reported,
    latest_only,
)
from testbed.emulation.actors.seam import Actor, tell, until
from testbed.emulation.actors.worker_setup import let_the_supervised_go_first
from testbed.emulation.processes.master import ControlPlaneDown, MasterLife
from testbed.emulation.processes.master_messages import (
    Begin,
    FromMaster,
    Late,
    Leads,
    NodeCommand,
    Pushed,
    Reset,
    Said,
)
from testbed.emulation.processes.process import last_lines
from testbed.emulation.processes.pushed import PushedResources
from testbed.objects.addresses import PodAddress
from testbed.objects.cells import Layer
from testbed.objects.cluster import ClusterSpec, Declared
from testbed.objects.core import Node, Pod
from testbed.objects.metadata import DEFAULT_NAMESPACE
from testbed.objects.places import Topology

ANSWERS_WITHIN_S = 20.0
"""A master that is busy is given as long."""
MASTER_LOG = "master.log"
"""Of the only one."""

PodsEver = tuple[dict[str, Pod], dict[str, tuple[PodAddress, float]]]
"""Pods that were to be started, and starts: where, and when in monotonic seconds of the pod's machine; by name."""
AppliedStreams = tuple[int, Streams]
"""How far a master has applied the log, and who is told by it."""


class Master(Placed):
    def __init__(
        self,
        cluster: ClusterSpec,
        topology: Topology,
        card: NetworkCard,
        clients: Sequence[str],
        folders: MachineFolders,
        seed: int,
        others: Sequence[str] = (),
        peer_secret: bytes = b"",
    ) -> None:
        """`card` is that of its place, `clients` are the places from which load comes, `others` those of other
        masters, which know each other by the secret."""
        of = f" at {card.place}" if others else ""
        super().__init__(f"the supervisor of the control plane{of}", card)
        let_the_supervised_go_first()
        self._named = f"the control plane{of}"
        self._source = card.place if others else "master"
        """Of what it records."""
        self._others = tuple(others)
        self._timings = cluster.timings
        self._declared = cluster.objects
        self._nodes = frozenset(node.name for node in topology.nodes)
        self._begin = Begin(
            card.place,
            folders.volumes / card.place,
            cluster.timings,
            cluster.mesh_mode,
            tuple(clients),
            seed,
            peer_secret=peer_secret,
        )
        self._log = folders.logs / (f"{card.place}.log" if others else MASTER_LOG)
        self._environment = folders.environment()
        self._channels: dict[str, ControlChannel[NodeCommand]] = {}
        self._clock_offsets_s: dict[str, float] = {}
        self._life: MasterLife | None = None
        """The process that runs, or is about to."""
        self._restart: asyncio.TimerHandle | None = None
        """By which it is to begin."""
        self._serving = asyncio.Event()
        self._without_power: set[str] = set()
        self._paused: set[str] = set()
        self._resumed_s = 0.0
        self._died: str | None = None
        """How its process ended by itself, if it did."""
        self._ordered: dict[str, Pod] = {}
        self._starts: dict[str, tuple[PodAddress, float]] = {}
        """Of pods, by name: where, and when in monotonic seconds of their machine."""
        self._pushes: dict[tuple[str, str, str], Push] = {}
        self._pushed = PushedResources()

    async def connect(self, subscribers: dict[str, Actor], clock_offsets_s: dict[str, float]) -> None:
        """Start the master, and open the control path to every place at which somebody is told something: nodes, and
        clients of zones. Returns when places can connect to it.

        `clock_offsets_s` is the monotonic clock of each place's machine minus this one's.
        """
        self.loop_watch.start()
        self._clock_offsets_s = clock_offsets_s
        for place, actor in subscribers.items():
            self._channels[place] = self.card.channel(place, partial(_deliver, actor), latest_only)
        if self._others:
            listen, peers = await self.card.open_peers(self._others)
            self._begin = replace(self._begin, listen=listen, peers=peers)
        self._start(after_s=0.0)
        await self._serving.wait()
        if self._died is not None:
            raise ChildProcessError(self._died)

    async def declare(self) -> None:
        """Apply what the scenario does. With thousands of objects on a busy machine this takes its time."""
        await self._ask("apply", self._declared, within_s=None)

    # --- what can be asked of it -------------------------------------------------------------------------------

    async def apply(self, objects: Sequence[Declared]) -> None:
        """Create or change objects, as `kubectl apply` does. Raises Refused; then nothing has changed. As all that is
        asked, it raises ControlPlaneDown, and NotLeading where another may know better."""
        for each in objects:
            if isinstance(each, Node) and each.name not in self._nodes:
                raise Refused(f"Node {each.name!r}: the topology has no such place")
        await self._ask("apply", tuple(objects))

    async def delete(self, kind: type[Declared] | type[Pod], name: str, namespace: str = DEFAULT_NAMESPACE) -> None:
        """As `kubectl delete` does. Raises Refused where there is no such object."""
        await self._ask("delete", kind, name, namespace)

    async def streams(self) -> AppliedStreams:
        """Those who are told by this one, whoever leads."""
        streams: AppliedStreams = await self._ask("streams")
        return streams

    async def readiness(self, *others: AppliedStreams) -> Readiness:
        """`others` are the `streams` of the other masters, here and below."""
        ready, total, waiting_for = await self._ask("readiness", others)
        return Readiness(len(self._starts), ready, total, waiting_for)

    async def overview(self, *others: AppliedStreams) -> Overview:
        """Every node and pod, as the control plane knows them."""
        overview: Overview = await self._ask("overview", others)
        return overview

    async def behind(self, layer: Layer, *others: AppliedStreams) -> Behind:
        """Which proxies of a layer do not have all that they should have."""
        behind: Behind = await self._ask("behind", others, layer)
        return behind

    async def _ask(self, method: str, *arguments: object, within_s: float | None = ANSWERS_WITHIN_S) -> Any:
        self._require_answering()
        try:
            async with asyncio.timeout(within_s):
                assert self._life is not None
                return await self._life.ask(method, *arguments)
        except TimeoutError:
            raise ControlPlaneDown(f"{self._named} has not answered for {within_s:g} s") from None

    def _require_answering(self) -> None:
        for faults, what in ((self._without_power, "has no power"), (self._paused, "is paused")):
            if faults:
                raise ControlPlaneDown(f"{self._named} {what}, by {', '.join(sorted(faults))}")
        if self._died is not None:
            raise ControlPlaneDown(self._died)
        if self._restart is not None:
            raise ControlPlaneDown(f"{self._named} was killed, and is not back yet")

    # --- what was recorded ---------------------------------------------------------------------------------------

    async def pods_ever(self) -> PodsEver:
        """Also those that are gone by now. Of several masters one may have passed on the order, and another have heard
        that it was carried out."""
        return self._ordered, self._starts

    async def pushes(self) -> list[Push]:
        """All pushes so far."""
        return list(self._pushes.values())

    async def pushed_resources(self) -> tuple[int, bytes]:
        """What these refer to: how many, and they themselves for `pushed.lines`."""
        return len(self._pushed), self._pushed.compressed()

    def patience_s(self) -> float:
        return self._timings.lease_patience_s

    # --- what places say -----------------------------------------------------------------------------------------

    async def report(self, letters: Sequence[Letter]) -> None:
        """Take what nodes and clients have to say, in the order in which their links delivered it. What is said while
        there is no process is lost."""
        with self.failing_loudly():
            for letter in letters:
                self._take(letter)

    def _take(self, letter: Letter) -> None:
        arrived_s = letter.delivered_s - self._clock_offsets_s[letter.place]
        for report in letter.reports:
            self._note(report)
        if self._life is not None and self._restart is None:
            for session, said in groupby(letter.reports, key=lambda report: report.session):
                self._life.send(Said(letter.place, session, arrived_s, tuple(report.event for report in said)))

    def _note(self, report: Reported) -> None:
        match report.event:
            case PodStarted(_, pod, address):
                self._starts.setdefault(pod, (address, report.at_s))
            case NodeRegistered(pods=listed):
                for each in listed:
                    self._starts.setdefault(each.name, (each.address, report.at_s))
            case ConfigAcked(proxy, type_url, version):
                push = self._pushes.get((proxy, type_url, version))
                if push is not None and push.acked_s is None:
                    push.acked_s = report.at_s
            case ConfigRejected(proxy, type_url, version, error):
                push = self._pushes.get((proxy, type_url, version))
                if push is not None:
                    push.error = error

    # --- what it decides -----------------------------------------------------------------------------------------

    def _hear(self, message: FromMaster) -> None:
        with self.failing_loudly():
            self._carry_out(message)

    def _carry_out(self, message: FromMaster) -> None:
        match message:
            case Serves(term, sessions):
                self._serving.set()
                for place, channel in self._channels.items():
                    channel.send(Leads(self.card.place, term, sessions.get(place)))
            case Pushed():
                self._push(message)
            case Tell(place, _, what):
                if isinstance(what, StartPod):
                    self._order(what.pod)
                self._channels[place].send(message)
            case RecordEvent(kind, name, reason, details):
                self._events.append(Recorded(time.monotonic(), self._source, kind, name, reason, details))
            case Late(due_s, late_s):
                # Whoever was stopped by a fault was not held up by the testbed.
                if due_s >= self._resumed_s:
                    self.record_late(due_s, late_s, self._named)

    def _order(self, pod: Pod) -> None:
        self._ordered[pod.name] = pod
        if pod.address is not None:
            # It has been started before, as another master heard.
            there_s = time.monotonic() + self._clock_offsets_s[str(pod.node)]
            self._starts.setdefault(pod.name, (pod.address, there_s))

    def _push(self, pushed: Pushed) -> None:
        push = pushed.push
        self._pushed.add(pushed.contents)
        self._pushes[push.proxy, push.type_url, push.version] = Push(
            push.proxy,
            push.place,
            push.type_url,
            push.version,
            time.monotonic(),
            self._pushed.numbers(pushed.digests),
        )
        self._channels[push.place].send(push)

    # --- its process ---------------------------------------------------------------------------------------------

    def _start(self, after_s: float) -> None:
        """A process that begins after that time, and gets warm until then."""
        life = self._life = MasterLife(self._environment, self._log, self._hear, self._end_by_itself)
        self._restart = asyncio.get_running_loop().call_later(after_s, self._begin_life, life)

    def _begin_life(self, life: MasterLife) -> None:
        self._restart = None
        life.send(self._begin)
        self._record("Started")

    def _end_by_itself(self, code: int) -> None:
        self._died = f"the process of the master died (exit code {code}): {last_lines(self._log)}"
        self.report_defect(self._died)
        self._gone()
        self._serving.set()

    async def _kill(self) -> float:
        """End its process, as `kill -9` does. Returns when, in monotonic seconds."""
        life = self._life
        if life is not None:
            await life.kill()
        at_s = time.monotonic()
        if self._life is life:
            self._gone()
        return at_s

    def _gone(self) -> None:
        if self._restart is not None:
            self._restart.cancel()
        self._life = self._restart = None
        self._serving.clear()
        self._paused.clear()

    async def kill(self, due_s: float) -> float | None:
        """A fault ends the master's process; it is started again after `master_restart_s`. Returns when, in monotonic
        seconds; None if there was none."""
        await until(due_s)
        if self._life is None or self._restart is not None:
            return None
        at_s = await self._kill()
        self._record("Killed", at_s=at_s)
        if self._others:
            for channel in self._channels.values():
                channel.send(Reset(self.card.place))
        if not self._without_power:
            self._start(self._timings.master_restart_s)
        return at_s

    async def cut_power(self, fault: str) -> float:
        """Power off: the process ends, and there is none until power is back. The links were silenced before, and what
        has not left is lost."""
        was_on = not self._without_power
        self._without_power.add(fault)
        for channel in self._channels.values():
            channel.drop_waiting()
        at_s = await self._kill()
        if was_on:
            self._record("PoweredOff", at_s=at_s)
        return at_s

    async def restore_power(self, fault: str) -> float:
        """What a fault did by `cut_power` is over. Returns when, in monotonic seconds."""
        self._without_power.discard(fault)
        if not self._without_power and self._life is None:
            self._start(after_s=0.0)
        return time.monotonic()

    async def pause(self, fault: str, due_s: float) -> float | None:
        """A fault stops the process, which notices nothing (SIGSTOP); None if there was none."""
        await until(due_s)
        if self._life is None or self._restart is not None:
            return None
        self._paused.add(fault)
        self._life.signal(signal.SIGSTOP)
        self._life.give_up("the control plane was paused before it has answered")
        self._record("Paused")
        return time.monotonic()

    async def resume(self, fault: str, due_s: float) -> float:
        """What a fault did by `pause` is over."""
        await until(due_s)
        if fault in self._paused:
            self._paused.discard(fault)
            if not self._paused and self._life is not None:
                self._resumed_s = time.monotonic()
                self._life.signal(signal.SIGCONT)
                self._record("Resumed")
        return time.monotonic()

    async def shut_down(self) -> None:
        self.loop_watch.stop()
        await self._kill()
        await self.card.unplug()

    def _record(self, reason: str, details: dict[str, object] | None = None, at_s: float | None = None) -> None:
        at_s = time.monotonic() if at_s is None else at_s
        self._events.append(Recorded(at_s, self._source, "Master", self.card.place, reason, details or {}))


async def _deliver(actor: Actor, commands: list[NodeCommand]) -> None:
    await tell(actor, "take_commands", commands)
