"""A node: its kubelet, and its network card.

Carries out what `control.kubelet` decides and keeps the pods' actors, so that its death is theirs. The actor itself
outlives a crash of the emulated node: a machine without power still has to stay silent.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import orjson

from testbed.control.cells.promotion import Promotion
from testbed.control.cells.store_orders import Forbid, Lead, StoreAnswer
from testbed.control.kubelet.messages import (
    Answered,
    Connected,
    End,
    Ended,
    Failed,
    Forget,
    Killed,
    NodeAction,
    NodeEvent,
    OfPod,
    PluggedIn,
    PowerBack,
    PowerCut,
    Probe,
    RecordExit,
    Register,
    ShutDown,
    Start,
    Tell,
)
from testbed.control.kubelet.node import NodeLifecycle
from testbed.control.kubelet.pod_lifecycle import ProbeFinished, ProxyReady
from testbed.control.kubelet.process import Process
from testbed.control.messages import (
    ConfigAcked,
    ConfigRejected,
    Event,
    NodeRegistered,
    ProxyConnected,
    StartPod,
    StopPod,
)
from testbed.control.placement import Hosting
from testbed.emulation.actors.control_link import ControlLink
from testbed.emulation.actors.mail import mail_to
from testbed.emulation.actors.network_card import NetworkCard, Placed
from testbed.emulation.actors.pod import Pod
from testbed.emulation.actors.reports import MachineFolders, Recorded, Reported
from testbed.emulation.actors.seam import Actor, handle_of, in_process, start_actor, this_actor, until
from testbed.emulation.actors.sidecar import Sidecar
from testbed.emulation.actors.vigil import ActorLost, Watched
from testbed.emulation.actors.worker_setup import let_the_supervised_go_first
from testbed.emulation.processes.container import StoreHome, command_line
from testbed.emulation.processes.forked_process import fork_server_socket
from testbed.emulation.processes.http_get import Reply, get
from testbed.emulation.processes.kube_proxy import KubeProxy
from testbed.emulation.processes.master_messages import EncodedPush, NodeCommand
from testbed.emulation.processes.probes import run_probe
from testbed.network.addresses.backend import NetworkBackend
from testbed.objects.addresses import PodAddress, SocketAddress
from testbed.objects.core import Pod as PodObject
from testbed.objects.places import Topology
from testbed.objects.timings import Timings
from testbed.objects.workloads import Probe as ProbeTemplate

TIMER_S = 0.0015
"""The loop counts in whole milliseconds, and would wake up before the deadline, several times each."""


@dataclass(slots=True)
class _Supervised:
    """Who supervises the processes of a pod, and the address that it keeps as long as the node holds it."""

    address: PodAddress
    actors: dict[Process, Watched] = field(default_factory=dict)


class NodeAgent(Placed):
    def __init__(
        self,
        name: str,
        topology: Topology,
        masters: Mapping[str, Actor],
        timings: Timings,
        network: NetworkBackend,
        folders: MachineFolders,
        seed: int,
        services: Sequence[str],
        captured: Mapping[str, int],
        hosting: Hosting,
        store_secret: str,
    ) -> None:
        """`services` are those that the node's kube-proxy serves: none of them in a mesh. `captured` are the ports of
        a pod's own address where its proxy serves those that speak TCP. `hosting` says where what supervises the node's
        pods lives. Replicas of stores know each other by the secret."""
        card = NetworkCard(name, topology, network, folders.sockets, seed)
        super().__init__(f"the agent of node {name}", card)
        let_the_supervised_go_first()
        self._name = name
        self._peers = [place.name for place in topology.nodes if place.name != name]
        self._network = network
        self._control = ControlLink(card, masters, topology, timings, self._deliver, self._connect, self._list)
        self._folders = folders
        self._fork_server = fork_server_socket(folders.sockets)
        self._seed = seed
        self._hosting = hosting
        self._store_home = StoreHome(network, folders.volumes, store_secret)
        self._kube_proxy = KubeProxy(name, services, network, card, folders.logs)
        self._captured = captured
        self._relays: dict[str, SocketAddress] = {}
        self._timings = timings
        self._node = NodeLifecycle(name, timings, Random(f"{seed}/{name}"))
        self._supervised: dict[str, _Supervised] = {}
        self._started_pods = 0
        self._under_way: set[asyncio.Task[None]] = set()
        """Starts and ends of processes that are not answered yet."""
        self._timer: asyncio.TimerHandle | None = None
        self._wake_s = 0.0
        """When that is due, by the monotonic clock."""
        self._versions: dict[str, dict[str, int]] = {}
        """By who takes configuration here and by type, what it was sent last."""
        self._connected: set[str] = set()
        """Proxies that have a stream to who supervises them."""

    # --- power ---------------------------------------------------------------------------------------------------

    async def boot(self) -> None:
        """Plug in the network card and power on for the first time."""
        self.loop_watch.start()
        self._relays = await self.card.open_paths(self._peers)
        await self._kube_proxy.listen()
        self._control.open()
        self._take(PluggedIn())

    async def restore_power(self, fault: str) -> float:
        """What a fault did by `cut_power` is over. Returns when, in monotonic seconds."""
        self._take(PowerBack(fault))
        return time.monotonic()

    async def cut_power(self, fault: str) -> tuple[float, list[str]]:
        """Power off: every process of the node ends at once. The links were silenced before.

        Returns when, in monotonic seconds, and the pods whose proxies ran.
        """
        self._control.close()
        self._connected.clear()
        killed = [pod.name for pod, up in self._node.up() if "proxy" in up]
        await asyncio.gather(*self._take(PowerCut(fault)))
        return time.monotonic(), killed

    # --- the world does something to it --------------------------------------------------------------------------

    async def kill_pod(self, pod: str, due_s: float) -> float | None:
        """End every process of one pod, as `kill -9` does. Returns when, in monotonic seconds; None if none ran."""
        await until(due_s)
        killing = self._take(Killed(pod))
        if not killing:
            return None
        await asyncio.gather(*killing)
        return time.monotonic()

    async def prefer_leader(self, pod: str, promotion: Promotion, within_s: float) -> bool:
        """Ask a store's replica here for that leader; whether it knows by then that it leads. The order itself takes no
        way over links."""
        reply = await self._patch_store(pod, promotion.group, promotion.primaries, within_s)
        return reply is not None and reply.status == 204

    async def order_store(self, pod: str, orders: Sequence[Lead | Forbid], within_s: float) -> list[StoreAnswer]:
        """Tell a replica of an asynchronous store here, one after the other. They take no way over links either."""
        answers = []
        for order in orders:
            reply = await self._patch_store(pod, order.group, order.body, within_s)
            done = reply is not None and reply.status == 200
            answers.append(StoreAnswer(done, orjson.loads(reply.body) if reply is not None and done else None))
        return answers

    async def _patch_store(self, pod: str, group: int, body: object, within_s: float) -> Reply | None:
        supervised = self._supervised.get(pod)
        if supervised is None:
            return None
        try:
            async with asyncio.timeout(within_s):
                return await get(supervised.address.app, f"/{group}", method="PATCH", body=orjson.dumps(body))
        except OSError:  # a time-out is one, too
            return None

    # --- the control plane wants something -----------------------------------------------------------------------

    async def take_commands(self, commands: list[NodeCommand]) -> None:
        for command in commands:
            match told := self._control.hear(command):
                case StartPod() | StopPod():
                    self._take(told)
                case EncodedPush(self._kube_proxy.name) if self._node.at_work:
                    self.spawn(self._lead(told))
                case EncodedPush(proxy, _, type_url, version, resources) if self._node.at_work:
                    with self.failing_alone(f"configuration of pod {proxy}"):
                        if proxy in self._supervised:
                            self._versions.setdefault(proxy, {})[type_url] = int(version)
                            self._supervised[proxy].actors["proxy"].actor.publish.remote(type_url, version, resources)

    async def _lead(self, push: EncodedPush) -> None:
        self._versions.setdefault(push.proxy, {})[push.type_url] = int(push.version)
        await self._kube_proxy.take(push.resources)
        self._report(ConfigAcked(push.proxy, push.type_url, push.version))

    # --- its pods report -----------------------------------------------------------------------------------------

    async def process_exited(self, pod: str, process: Process, life: int, code: int, last_words: str) -> None:
        """A process of a pod ended; `life` is the number that it was started with."""
        if process == "proxy":
            self._connected.discard(pod)
        self._take(Ended(pod, process, life, code, last_words))

    async def proxy_reported(self, pod: str, what: str, at_s: float, details: tuple[str, ...]) -> None:
        """The proxy connected, acknowledged or rejected configuration, or serves; `at_s` in monotonic seconds."""
        if not self._node.at_work or not self._node.holds(pod):
            return
        with self.failing_alone(f"pod {pod}"):
            match what, details:
                case "connected", ():
                    self._connected.add(pod)
                    self._report(self._connection_of(pod), at_s)
                case "acked", (type_url, version):
                    self._report(ConfigAcked(pod, type_url, version), at_s)
                case "rejected", (type_url, version, error):
                    self._report(ConfigRejected(pod, type_url, version, error), at_s)
                case "late", (due_s, late_s):
                    self.record_late(float(due_s), float(late_s), f"the supervisor of pod {pod} (sidecar)")
                case "ready", ():
                    self._take(OfPod(pod, ProxyReady(True)))
                case _:
                    raise AssertionError(f"its proxy reported {what} {details}")

    # --- the run asks --------------------------------------------------------------------------------------------

    async def running_pods(self) -> list[PodObject]:
        """Pods of which every process runs."""
        return self._node.running_pods()

    def patience_s(self) -> float:
        templates = [pod.template for pod, _ in self._node.up()]
        probes = (probe for each in templates for probe in (each.readiness, each.liveness) if probe is not None)
        return min([self._timings.lease_patience_s, *(probe.patience_s for probe in probes)])

    async def shut_down(self) -> None:
        """End everything in good order."""
        self.loop_watch.stop()
        self._control.close()
        self._take(ShutDown())
        while self._under_way:
            await asyncio.wait(self._under_way)
        for name in list(self._supervised):
            self._forget(name)
        await self.card.unplug()

    # --- carrying out what the node decides ------------------------------------------------------------------------

    def _take(self, event: NodeEvent | None) -> list[asyncio.Task[None]]:
        """Do what follows from an event, or from the time alone. Returns the ends of processes that are under way."""
        ends = []
        with self.failing_loudly():
            for action in self._node.handle(event, time.monotonic()):
                if isinstance(action, End):
                    ends.append(self._begin(self._end(action)))
                else:
                    self._carry_out(action)
            self._look_ahead()
        return ends

    def _carry_out(self, action: NodeAction) -> None:
        match action:
            case Start():
                self._begin(self._start(action))
            case Probe(pod):
                self.spawn(self._probe(action, self._supervised[pod.name].address))
            case Register(pods, booted):
                if booted:
                    self._control.begin()
                self._report(NodeRegistered(self._name, tuple(self._relays.items()), pods, booted))
                if booted:
                    self._report_streams()
            case Tell(event):
                self._report(event)
            case RecordExit(pod, details):
                self._events.append(Recorded(time.monotonic(), self._name, "Pod", pod, "ProcessExited", details))
            case Forget(pod):
                self._forget(pod)
            case Failed(pod, error):
                self.report_failed(f"pod {pod}", error)

    def _connect(self) -> None:
        """A session has begun: a node that is at work says what there is, others do when they boot."""
        self._list()
        self._report_streams()

    def _list(self) -> None:
        self._take(Connected())

    def _report_streams(self) -> None:
        kube_proxy = [self._kube_proxy.name] if self._kube_proxy.addresses else []
        for proxy in (*kube_proxy, *sorted(self._connected)):
            self._report(self._connection_of(proxy))

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self.spawn(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return task

    async def _start(self, start: Start) -> None:
        address, failures = None, {process: "" for process, _ in start.lives}
        with self.failing_alone(f"pod {start.pod.name}"):
            supervised = self._supervise(start)
            address = supervised.address
            asked = (supervised.actors[process].ask("start", life) for process, life in start.lives)
            answers = zip(failures, await asyncio.gather(*asked, return_exceptions=True), strict=True)
            failures = {process: str(error) for process, error in answers if error is not None}
        self._take(Answered(start, address, failures))

    async def _end(self, end: End) -> None:
        with self.failing_alone(f"pod {end.pod}"), contextlib.suppress(ActorLost):
            supervised = self._supervised.get(end.pod)
            if supervised is not None and end.process in supervised.actors:
                await supervised.actors[end.process].ask(end.how)

    async def _probe(self, asked: Probe, address: PodAddress) -> None:
        name, template = asked.pod.name, asked.pod.template
        with self.failing_alone(f"pod {name}"):
            probe = template.readiness if asked.kind == "readiness" else template.liveness
            assert probe is not None, f"there is no {asked.kind} probe"
            env: dict[str, str] = {}
            if probe.kind == "exec":
                services, home = self._services_of(address), self._store_home
                _, env = command_line(asked.pod, address, 0, services, self._folders.logs, home)
                env = {**self._folders.container_environment(), **env}
            ok, message = await self._result(probe, address.app, env)
            self._take(OfPod(name, ProbeFinished(asked.kind, ok, message)))

    async def _result(self, probe: ProbeTemplate, address: SocketAddress, env: dict[str, str]) -> tuple[bool, str]:
        """Whether it succeeded, and what it saw. A probe whose time ran out while this process was held up has seen
        that, and is repeated: it must not count against the pod."""
        while True:
            began_s = time.monotonic()
            ok, message = await run_probe(probe, address, env, self._fork_server)
            due_s = began_s + probe.timeout_s
            if ok or time.monotonic() < due_s - TIMER_S:
                return ok, message
            self.loop_watch.woke(due_s)
            if not (self.loop_watch.held_up_since(began_s) and self._node.at_work):
                return ok, message

    # --- the pods' actors ------------------------------------------------------------------------------------------

    def _supervise(self, start: Start) -> _Supervised:
        """The pod with an address, and with an actor for each process that is to be started."""
        pod = start.pod
        if pod.name not in self._supervised:
            self._supervised[pod.name] = _Supervised(self._network.allocate_pod(self._name, pod.template.port))
        supervised = self._supervised[pod.name]
        for process, _ in start.lives:
            if process not in supervised.actors:
                what = "sidecar" if process == "proxy" else "container"
                title = f"the supervisor of pod {pod.name} ({what}) on node {self._name}"
                actor = self._new_actor(pod, supervised.address, process)
                supervised.actors[process] = Watched(actor, title, self._actor_broken)
        return supervised

    def _forget(self, pod: str) -> None:
        """The last handles of its actors go, and so the actors."""
        supervised = self._supervised.pop(pod, None)
        self._connected.discard(pod)
        self._versions.pop(pod, None)
        if supervised is not None:
            for actor in supervised.actors.values():
                actor.dismiss()

    def _actor_broken(self, what: str) -> None:
        if not self._node.closing:
            self.report_defect(what)

    def _new_actor(self, pod: PodObject, address: PodAddress, process: Process) -> Actor:
        if process == "proxy":
            return self._supervisor(Sidecar, pod.name)
        # Every pod draws numbers of its own from the run's seed.
        self._started_pods += 1
        seed = Random(f"{self._seed}/{self._name}/{self._started_pods}").getrandbits(32)
        return self._supervisor(Pod, pod, address, seed, self._services_of(address), self._store_home)

    def _services_of(self, pod: PodAddress) -> dict[str, SocketAddress]:
        """Where a pod finds the services that it does not call by name through its proxy."""
        captured = {service: SocketAddress(pod.app.ip, port) for service, port in self._captured.items()}
        return {**self._kube_proxy.addresses, **captured}

    def _supervisor(self, kind: type, *arguments: object) -> Actor:
        match self._hosting:
            case "actor":
                return start_actor(kind, this_actor(), self._folders, *arguments)
            case "node":
                return in_process(kind, handle_of(self), self._folders, *arguments)

    # --- time and messages -----------------------------------------------------------------------------------------

    def _look_ahead(self) -> None:
        """Wake up at the node's next deadline."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due_s = self._node.next_deadline()
        if due_s is not None:
            now_s = time.monotonic()
            self._wake_s = max(now_s, due_s) + TIMER_S
            self._timer = asyncio.get_running_loop().call_later(self._wake_s - now_s, self._advance)

    def _advance(self) -> None:
        self.loop_watch.woke(self._wake_s)
        self._take(None)

    def _report(self, event: Event, at_s: float | None = None) -> None:
        if self._node.at_work:
            self._control.say(event, at_s)

    def _connection_of(self, proxy: str) -> ProxyConnected:
        return ProxyConnected(proxy, tuple(self._versions.get(proxy, {}).items()))

    async def _deliver(self, master: Actor, reports: list[Reported]) -> None:
        mail_to(master, self._timings.lease_patience_s).post(self._name, reports)
