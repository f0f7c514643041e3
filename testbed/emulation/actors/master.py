"""The API server, controllers and istiod as one actor: feeds events to the control plane, carries out its commands.

Decides nothing. The control path to every node obeys the emulated links, from the place that the scenario gives it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from functools import partial

import orjson

from testbed.control.api_server import Refused
from testbed.control.messages import (
    Command,
    ConfigAcked,
    ConfigRejected,
    Delete,
    PodStarted,
    PushConfig,
    RecordEvent,
    StartPod,
    StopPod,
)
from testbed.control.overview import Overview
from testbed.control.plane import Behind, ControlPlane
from testbed.control.views.kube_proxy import ENDPOINT_SLICE
from testbed.emulation.actors.control_channel import ControlChannel
from testbed.emulation.actors.network_card import NetworkCard, Placed
from testbed.emulation.actors.pushed import PushedResources
from testbed.emulation.actors.reports import (
    EncodedPush,
    Letter,
    NodeCommand,
    Outgoing,
    Push,
    Readiness,
    Recorded,
    Reported,
    latest_only,
)
from testbed.emulation.actors.seam import Actor, tell
from testbed.emulation.processes.protobuf import shared_to_any
from testbed.objects.cells import Layer
from testbed.objects.cluster import ClusterSpec, Declared
from testbed.objects.core import Node, Pod
from testbed.objects.metadata import DEFAULT_NAMESPACE
from testbed.objects.places import Topology
from testbed.objects.workloads import Deployment

BUSY_S = 0.05
"""A deadline that is met later than that was met by a busy master."""
MAIL_S = 0.05
"""What it then takes to read what has come in meanwhile."""


class Master(Placed):
    def __init__(self, cluster: ClusterSpec, topology: Topology, card: NetworkCard, clients: Sequence[str]) -> None:
        """`card` is that of its place, `clients` are the places from which load comes."""
        super().__init__("the control plane", card)
        self._timings = cluster.timings
        self._plane = ControlPlane(cluster.timings, cluster.mesh_mode, clients)
        self._declared = cluster.objects
        self._nodes = frozenset(node.name for node in topology.nodes)
        self._channels: dict[str, ControlChannel[Outgoing]] = {}
        self._clock_offsets_s: dict[str, float] = {}
        self._now_s = 0.0
        """What the control plane was last told is the time, by this machine's monotonic clock."""
        self._started: dict[str, tuple[Pod, float]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._wake_s = 0.0
        """When that is due, by the monotonic clock."""
        self._pushes: dict[tuple[str, str, str], Push] = {}
        self._pushed = PushedResources()

    async def connect(self, subscribers: dict[str, Actor], clock_offsets_s: dict[str, float]) -> None:
        """Open the control path to every place at which somebody is told something: nodes, and clients of zones.

        `clock_offsets_s` is the monotonic clock of each place's machine minus this one's.
        """
        self.loop_watch.start()
        self._clock_offsets_s = clock_offsets_s
        for place, actor in subscribers.items():
            self._channels[place] = self.card.channel(place, partial(_deliver, actor), latest_only)
        await self.apply(self._declared)

    async def apply(self, objects: Sequence[Declared]) -> None:
        """Create or change objects, as `kubectl apply` does. Raises Refused; then nothing has changed."""
        for each in objects:
            if isinstance(each, Node) and each.name not in self._nodes:
                raise Refused(f"Node {each.name!r}: the topology has no such place")
        self._carry_out(self._plane.apply(objects, self._advanced_s()))
        self._look_ahead()

    async def delete(self, kind: type[Declared] | type[Pod], name: str, namespace: str = DEFAULT_NAMESPACE) -> None:
        """As `kubectl delete` does. Raises Refused where there is no such object."""
        self._carry_out(self._plane.handle(Delete(kind, name, namespace), self._advanced_s()))
        self._look_ahead()

    def _advanced_s(self) -> float:
        """The time for what a user asks: now, unless there is mail of before to be read first."""
        deadline_s, now_s = self._plane.next_deadline(), time.monotonic()
        if deadline_s is None or now_s <= deadline_s + BUSY_S:
            self._now_s = now_s
        return self._now_s

    async def report_all(self, letters: list[Letter]) -> None:
        """The same from several places, in the order in which their links delivered it."""
        for letter in letters:
            await self.report(letter.place, letter.delivered_s, letter.reports)

    async def report(self, place: str, delivered_s: float, reports: Sequence[Reported]) -> None:
        """Take what a node or clients have to say, in order. The emulated link delivered it at `delivered_s` of the
        clock there."""
        with self.failing_loudly():
            self._take_in(reports, delivered_s - self._clock_offsets_s[place])

    def _take_in(self, reports: Sequence[Reported], arrived_s: float) -> None:
        # A control plane that is too busy to read its mail at once must not hold that against the nodes: a lease counts
        # from when it arrived, and nobody is given up while what arrived before is unread.
        self._now_s = max(self._now_s, min(arrived_s, time.monotonic()))
        for report in reports:
            self._note_answer(report)
            self._carry_out(self._plane.handle(report.event, self._now_s))
            if isinstance(report.event, PodStarted):
                self._note_start(report.event.pod, report.at_s)
        self._look_ahead()

    async def readiness(self) -> Readiness:
        pods, wanted = self._plane.pods(), self._plane.store.list(Deployment)
        total = sum(deployment.replicas for deployment in wanted)
        ready, waiting_for = sum(pod.ready for pod in pods), tuple(self._plane.not_ready())
        return Readiness(len(self._started), ready, total, waiting_for)

    async def overview(self) -> Overview:
        """Every node and pod, as the control plane knows them."""
        return self._plane.overview()

    async def behind(self, layer: Layer) -> Behind:
        """Which proxies of a layer do not have all that they should have."""
        return self._plane.behind(layer)

    async def pods_ever(self) -> tuple[tuple[Pod, float], ...]:
        """Every pod that was started during the run, also if it is gone by now, and when (monotonic seconds)."""
        return tuple(self._started.values())

    async def pushes(self) -> list[Push]:
        """All pushes so far."""
        return list(self._pushes.values())

    async def pushed_resources(self) -> bytes:
        """What these refer to, for `pushed.lines`."""
        return self._pushed.compressed()

    def _note_start(self, name: str, at_s: float) -> None:
        for pod in self._plane.pods():
            if pod.name == name:
                self._started.setdefault(name, (pod, at_s))

    def _note_answer(self, report: Reported) -> None:
        match report.event:
            case ConfigAcked(proxy, type_url, version):
                push = self._pushes.get((proxy, type_url, version))
                if push is not None and push.acked_s is None:
                    push.acked_s = report.at_s
            case ConfigRejected(proxy, type_url, version, error):
                push = self._pushes.get((proxy, type_url, version))
                if push is not None:
                    push.error = error

    def _carry_out(self, commands: list[Command]) -> None:
        now_s = time.monotonic()
        for command in commands:
            match command:
                case PushConfig():
                    self._push(command, now_s)
                case StartPod() | StopPod():
                    self._channels[command.node].send(command)
                case RecordEvent(kind, name, reason, details):
                    self._events.append(Recorded(now_s, "master", kind, name, reason, details))

    def _push(self, command: PushConfig, now_s: float) -> None:
        self._pushes[command.proxy, command.type_url, command.version] = Push(
            command.proxy,
            command.place,
            command.type_url,
            command.version,
            now_s,
            self._pushed.numbers(command.resources),
        )
        self._channels[command.place].send(command)

    def _look_ahead(self) -> None:
        """Wake up at the control plane's next deadline."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline_s = self._plane.next_deadline()
        if deadline_s is not None:
            now_s = time.monotonic()
            self._wake_s = max(now_s, deadline_s)
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._wake_s - now_s, self._due, deadline_s)

    def patience_s(self) -> float:
        return self._timings.lease_patience_s

    def _due(self, deadline_s: float) -> None:
        self.loop_watch.woke(self._wake_s)
        # Who was too busy to be on time has not read its mail either.
        if time.monotonic() > deadline_s + BUSY_S:
            self._timer = asyncio.get_running_loop().call_later(MAIL_S, self._advance)
        else:
            self._advance()

    def _advance(self) -> None:
        with self.failing_loudly():
            self._now_s = time.monotonic()
            self._carry_out(self._plane.handle(None, self._now_s))
            self._look_ahead()


async def _deliver(actor: Actor, commands: list[Outgoing]) -> None:
    # Encoded as late as this: what a newer push has superseded meanwhile is not.
    encoded: list[NodeCommand] = [_encoded(each) if isinstance(each, PushConfig) else each for each in commands]
    await tell(actor, "take_commands", encoded)


def _encoded(push: PushConfig) -> EncodedPush:
    encode = orjson.dumps if push.type_url == ENDPOINT_SLICE else shared_to_any
    return EncodedPush(push.proxy, push.type_url, push.version, tuple(encode(each) for each in push.resources))
