"""Three masters in a simulated world, with nodes that do as they are told: one seed is one schedule."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from testbed.consensus.membership import Membership
from testbed.consensus.outputs import Role, Send, Write
from testbed.consensus.storage import Stored
from testbed.control.masters.connection import Connection, patience_s
from testbed.control.masters.master import Master, Setup
from testbed.control.masters.messages import Answered, Closed, Output, PeerMessage, Serves, Tell
from testbed.control.messages import (
    ConfigAcked,
    Event,
    Hello,
    LeaseRenewed,
    NodeRegistered,
    PodListed,
    PodReadinessChanged,
    PodStarted,
    PodStopped,
    ProxyConnected,
    PushConfig,
    RecordEvent,
    SessionEvent,
    StartPod,
    StopPod,
)
from testbed.control.store import Store
from testbed.objects.core import Pod
from testbed.objects.timings import Timings
from tests.control.world import CLUSTER, address
from tests.simulated.world import CoarseRandom, Disk, World
from tests.simulated.world import Host as SimulatedHost


class Violation(Exception):
    pass


MASTERS = ("control-plane-1", "control-plane-2", "control-plane-3")
TIMINGS = replace(
    CLUSTER.timings,
    lease_renew_s=0.5,
    lease_grace_s=4.0,
    unreachable_toleration_s=1e6,
    election_timeout_s=1.0,
    leader_elect_lease_duration_s=0.0,
)
"""Nobody is ever evicted: whatever is stopped is stopped by mistake."""


class Running:
    """A master as a simulated world drives it."""

    def __init__(self, master: Master) -> None:
        self.master = master

    def next_deadline(self) -> float:
        due_s = self.master.next_deadline()
        return min(self.master.next_tick(), float("inf") if due_s is None else due_s)


@dataclass
class Host(SimulatedHost[Running]):
    answers: dict[int, Answered] = field(default_factory=dict)


@dataclass
class PlayedNode:
    """Remembers what runs on it and what its proxies were sent, as a real one does."""

    name: str
    connection: Connection
    pods: dict[str, PodListed] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)
    stopped: list[str] = field(default_factory=list)
    versions: dict[str, dict[str, int]] = field(default_factory=dict)
    resources: dict[str, dict[str, tuple[Mapping[str, Any], ...]]] = field(default_factory=dict)
    """What each proxy goes by, by type."""


class Simulation(World[Host]):
    def __init__(self, seed: int, timings: Timings = TIMINGS) -> None:
        super().__init__(seed)
        self.setup = Setup(timings, CLUSTER.mesh_mode)
        self.nodes: dict[str, PlayedNode] = {}
        self.events: list[tuple[float, str, RecordEvent]] = []
        """When, and which master."""
        self.started: set[str] = set()
        """Pods that some node has been told to start."""
        self.failed: set[str] = set()
        """Pods that were not ready for some time, or were started again."""
        self.slow = 0.0
        """How often what places and masters tell each other takes long."""
        self._told: dict[tuple[str, int, str], dict[str, int]] = {}
        """By master, session and proxy: the last version that it was sent, of each type."""
        self._ways: dict[tuple[str, str], deque[object]] = {}
        self._asked = 0
        for name in MASTERS:
            disk = Disk(Stored.nothing(Membership(MASTERS)))
            # No clock has anything to do with another's.
            self.hosts[name] = Host(name, {None: disk}, clock_offset_s=self.random.uniform(-1e4, 1e4))
            self.start(self.hosts[name])
        for number, node in enumerate(each.name for each in CLUSTER.nodes):
            order = [*MASTERS[number % 3 :], *MASTERS[: number % 3]]
            played = self.nodes[node] = PlayedNode(node, Connection(order, patience_s(timings)))
            self.at(0.0, self._boot, played)

    # --- masters ---------------------------------------------------------------------------------------------------

    def start(self, host: Host) -> None:
        random = CoarseRandom(self.random.random())
        master = Master(host.name, self.setup, host.disks[None].content(), random, self.clock(host))
        host.running = Running(master)
        host.timer_s, host.disk_free_s = None, self.now_s
        self.set_timer(host)

    def crash(self, host: Host, *, reset: bool = False) -> None:
        """With `reset`, who is connected is told so at once, as when a process is killed."""
        super().crash(host)
        host.answers.clear()
        for node in self.nodes.values():
            self._ways.pop((node.name, host.name), None)
            self._ways.pop((host.name, node.name), None)
            if reset:
                self._carry(host.name, node.name, (None, Closed()))

    def master(self, host: Host) -> Master:
        assert host.running is not None
        return host.running.master

    def receive(self, host: Host, message: PeerMessage) -> None:
        self.do(host, self.master(host).receive(message, self.clock(host)))

    def persisted(self, host: Host, log: int | None, number: int) -> None:
        self.do(host, self.master(host).persisted(number, self.clock(host)))

    def tick(self, host: Host) -> None:
        now_s = self.clock(host)
        self.do(host, self.master(host).tick(now_s))
        self.do(host, self.master(host).advance(now_s))

    def leader(self) -> Host | None:
        """Whose controllers run, of the highest term."""
        leading = [host for host in self.hosts.values() if host.running and self.master(host).leading is not None]
        return max(leading, key=lambda host: self.master(host).replica.term, default=None)

    def ask(self, host: Host, method: str, *arguments: object) -> int:
        self._asked += 1
        self.do(host, self.master(host).ask(self._asked, method, arguments, self.clock(host)))
        return self._asked

    def do(self, host: Host, outputs: Sequence[Output]) -> None:
        for output in outputs:
            self.seen[type(output).__name__] += 1
            match output:
                case Write():
                    self.write(host, None, output)
                case Send(to, message):
                    self.send(host.name, to, message)
                case Serves(_, sessions):
                    for node in self.nodes:
                        self._carry(host.name, node, (sessions.get(node), output))
                case Tell(place, session, what):
                    if isinstance(what, PushConfig):
                        told = self._told.setdefault((host.name, session, what.proxy), {})
                        told[what.type_url] = int(what.version)
                    self._carry(host.name, place, (session, what))
                case RecordEvent():
                    self.events.append((self.now_s, host.name, output))
                    self.seen[output.reason] += 1
                case Answered():
                    host.answers[output.number] = output
        self.set_timer(host)

    # --- the way between masters and places: in order, and held while it is cut --------------------------------------

    def _carry(self, source: str, destination: str, message: object) -> None:
        way = self._ways.setdefault((source, destination), deque())
        way.append(message)
        if len(way) == 1:
            takes_s = 0.4 if self.random.random() < self.slow else 0.02
            self.at(self.now_s + takes_s * self.random.random(), self._arrive, source, destination, way)

    def _arrive(self, source: str, destination: str, way: deque[object]) -> None:
        if self._ways.get((source, destination)) is not way or not way:
            return
        wait_s = 0.0
        if {(source, destination), (destination, source)} & self.cut:
            wait_s = 0.1
        elif destination in self.hosts and self.hosts[destination].paused_until_s > self.now_s:
            wait_s = self.hosts[destination].paused_until_s - self.now_s
        if wait_s:
            self.at(self.now_s + wait_s, self._arrive, source, destination, way)
            return
        message = way.popleft()
        if way:
            self.at(self.now_s, self._arrive, source, destination, way)
        if destination in self.nodes:
            self._obey(self.nodes[destination], source, *message)  # type: ignore[misc]
        elif (host := self.hosts[destination]).running is not None:
            session, event = message  # type: ignore[misc]
            now_s = self.clock(host)
            self.do(host, self.master(host).hear(source, session, [event], now_s, now_s))
            if isinstance(event, ConfigAcked):
                self._check_in_sync(host, self.nodes[source], event.proxy)

    # --- nodes -------------------------------------------------------------------------------------------------------

    def _boot(self, node: PlayedNode) -> None:
        node.connection.open(self.now_s)
        self._connect(node, booted=True)
        self._live(node)

    def _live(self, node: PlayedNode) -> None:
        self._say(node, LeaseRenewed(node.name))
        node.connection.ask(self.now_s)
        self._watch(node)
        self.at(self.now_s + self.setup.timings.lease_renew_s, self._live, node)

    def _watch(self, node: PlayedNode) -> None:
        if (due_s := node.connection.next_deadline()) is not None:
            self.at(due_s, self._give_up, node)

    def _give_up(self, node: PlayedNode) -> None:
        if node.connection.give_up(self.now_s):
            self._connect(node)

    def _connect(self, node: PlayedNode, *, booted: bool = False) -> None:
        self._say(node, Hello())
        self._list(node, booted=booted)
        for proxy, versions in node.versions.items():
            self._say(node, ProxyConnected(proxy, tuple(versions.items())))
        self._watch(node)

    def _list(self, node: PlayedNode, *, booted: bool = False) -> None:
        self._say(node, NodeRegistered(node.name, pods=tuple(node.pods.values()), booted=booted))

    def _say(self, node: PlayedNode, event: Event | SessionEvent) -> None:
        self._carry(node.name, node.connection.master, (node.connection.session, event))

    def _obey(self, node: PlayedNode, master: str, session: int | None, what: object) -> None:
        connection = node.connection
        match what:
            case Serves():
                match connection.take_lead(master, session, self.now_s):
                    case "connect":
                        self._connect(node)
                    case "list":
                        self._list(node)
            case Closed():
                if connection.close(master, session, self.now_s):
                    self._connect(node)
            case _ if session is None or not connection.hear(session):
                self.seen["too late for its session"] += 1
            case StartPod(_, pod) if pod.name not in node.held:
                self.started.add(pod.name)
                node.held.add(pod.name)
                self.at(self.now_s + 0.3, self._started, node, pod)
            case StopPod(_, name):
                if name in node.held:
                    node.held.discard(name)
                    node.pods.pop(name, None)
                    node.versions.pop(name, None)
                    node.resources.pop(name, None)
                    node.stopped.append(name)
                self._say(node, PodStopped(node.name, name))
            case PushConfig(_, proxy, type_url, version, resources) if proxy in node.versions:
                had = node.versions[proxy].get(type_url, 0)
                if int(version) <= had:
                    raise Violation(f"{proxy} had version {had} of {type_url}, and was sent {version}")
                node.versions[proxy][type_url] = int(version)
                node.resources[proxy][type_url] = resources
                self._say(node, ConfigAcked(proxy, type_url, version))

    def _started(self, node: PlayedNode, pod: Pod) -> None:
        if pod.name in node.held:
            node.pods[pod.name] = PodListed(pod.name, address(pod.name), 0, False)
            self._say(node, PodStarted(node.name, pod.name, address(pod.name)))
            node.versions[pod.name], node.resources[pod.name] = {}, {}
            self._say(node, ProxyConnected(pod.name))
            self.at(self.now_s + 0.1, self._ready, node, pod.name)

    def _ready(self, node: PlayedNode, name: str) -> None:
        if name in node.pods and not node.pods[name].ready:
            node.pods[name] = replace(node.pods[name], ready=True)
            self._say(node, PodReadinessChanged(node.name, name, True))

    def fail_probe(self, node: PlayedNode, name: str, for_s: float) -> None:
        """The pod is not ready for some time."""
        if node.pods[name].ready:
            self.failed.add(name)
            node.pods[name] = replace(node.pods[name], ready=False)
            self._say(node, PodReadinessChanged(node.name, name, False))
            self.at(self.now_s + for_s, self._ready, node, name)

    def crash_pod(self, node: PlayedNode, name: str) -> None:
        """It is started again; its proxy runs on."""
        self.failed.add(name)
        again = node.pods[name] = replace(node.pods[name], restarts=node.pods[name].restarts + 1, ready=False)
        self._say(node, PodStarted(node.name, name, again.address, again.restarts))
        self.at(self.now_s + 0.1, self._ready, node, name)

    # --- what is to hold ---------------------------------------------------------------------------------------------

    def _check_in_sync(self, host: Host, node: PlayedNode, proxy: str) -> None:
        """Whoever is said to have all has what it was sent last."""
        connection = node.connection
        if (connection.master, proxy in node.versions) != (host.name, True):
            return
        _, streams = self.master(host).streams()
        told = self._told.get((host.name, connection.session, proxy))
        if told and streams.sessions.get(proxy) == connection.session and streams.problems.get(proxy, "gone") is None:
            has = node.versions[proxy]
            if any(has.get(type_url) != version for type_url, version in told.items()):
                raise Violation(f"{host.name} takes {proxy} for in sync, which has {has} of {told}")

    def stores(self) -> list[Store]:
        """What is committed, as far as each master knows."""
        return [self.master(host)._committed for host in self.hosts.values() if host.running is not None]

    def leads_log(self) -> list[str]:
        return [
            host.name
            for host in self.hosts.values()
            if host.running is not None and self.master(host).replica.role is Role.LEADER
        ]
