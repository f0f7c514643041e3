"""A node: its kubelet, and its network card.

Carries out what `control.kubelet` decides for each pod and keeps the pods' actors, so that its death is theirs. The
actor itself outlives a crash of the emulated node: a machine without power still has to stay silent.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal

from testbed.control.kubelet.pod_lifecycle import (
    KillProcesses,
    KubeletCommand,
    KubeletEvent,
    PodLifecycle,
    PowerLost,
    PowerRestored,
    ProbeFinished,
    ProbeKind,
    ProcessesStarted,
    ProcessExited,
    ProxyReady,
    Report,
    RunProbe,
    StartProcesses,
    StartRequested,
    StopRequested,
)
from testbed.control.kubelet.process import Process
from testbed.control.messages import (
    ConfigAcked,
    ConfigRejected,
    Event,
    LeaseRenewed,
    NodeRegistered,
    PodStopped,
    ProxyConnected,
    StartPod,
    StopPod,
)
from testbed.control.placement import Hosting
from testbed.emulation.actors.control_channel import ControlChannel
from testbed.emulation.actors.network_card import NetworkCard, Placed
from testbed.emulation.actors.pod import Pod
from testbed.emulation.actors.reports import (
    EncodedPush,
    MachineFolders,
    NodeCommand,
    Recorded,
    Reported,
    latest_lease_only,
)
from testbed.emulation.actors.seam import Actor, handle_of, in_process, start_actor, tell, this_actor, until
from testbed.emulation.actors.sidecar import Sidecar
from testbed.emulation.actors.vigil import ActorLost, Watched
from testbed.emulation.processes.container import command_line
from testbed.emulation.processes.kube_proxy import KubeProxy
from testbed.emulation.processes.probes import run_probe
from testbed.network.addresses.backend import NetworkBackend
from testbed.objects.addresses import PodAddress, SocketAddress
from testbed.objects.core import Pod as PodObject
from testbed.objects.places import Topology
from testbed.objects.timings import Timings
from testbed.objects.workloads import CommandWorkload

RESTART_SPACING_S = 0.7
"""Between the pods of a node that boots. Starting all at once would take every core from the pods that serve, which
share the machine with it only here."""


@dataclass(slots=True)
class _HeldPod:
    """A pod on this node.

    `lives` counts the starts of each process, so that a late exit is not taken for that of the process after it.
    """

    pod: PodObject
    address: PodAddress
    lifecycle: PodLifecycle
    actors: dict[Process, Watched] = field(default_factory=dict)
    lives: dict[Process, int] = field(default_factory=dict)
    running: set[Process] = field(default_factory=set)
    ended_by: dict[Process, Literal["fault", "kubelet"]] = field(default_factory=dict)
    """Who is about to end a process, or has: nobody else may."""

    def program(self, process: Process) -> str:
        """What runs as this process: the testbed's own Envoy or workload, or the user's command."""
        if process == "proxy":
            return "envoy"
        return "command" if isinstance(self.pod.template.workload, CommandWorkload) else "workload"

    def dismiss(self) -> None:
        for actor in self.actors.values():
            actor.dismiss()


class NodeAgent(Placed):
    def __init__(
        self,
        name: str,
        topology: Topology,
        control_plane: str,
        timings: Timings,
        network: NetworkBackend,
        master: Actor,
        folders: MachineFolders,
        seed: int,
        services: Sequence[str],
        hosting: Hosting,
    ) -> None:
        """`services` are those that the node's kube-proxy serves: none of them in a mesh. `hosting` says where what
        supervises the node's pods lives."""
        card = NetworkCard(name, topology, network, folders.sockets, seed)
        super().__init__(f"the agent of node {name}", card)
        self._name = name
        self._peers = [place.name for place in topology.nodes if place.name != name]
        self._control_plane = control_plane
        self._timings = timings
        self._network = network
        self._master = master
        self._folders = folders
        self._seed = seed
        self._hosting = hosting
        self._random = Random(f"{seed}/{name}")
        self._kube_proxy = KubeProxy(name, services, network, card, folders.logs)
        self._relays: dict[str, SocketAddress] = {}
        self._pods: dict[str, _HeldPod] = {}
        self._started_pods = 0
        self._powered = False
        self._without_power: set[str] = set()
        """The faults that keep it without power."""
        self._closing = False
        self._events: list[Recorded] = []
        self._while_powered: list[asyncio.Task[None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._to_master: ControlChannel[Reported] | None = None

    # --- power ---------------------------------------------------------------------------------------------------

    async def boot(self) -> None:
        """Plug in the network card and power on for the first time."""
        self._relays = await self.card.open_paths(self._peers)
        await self._kube_proxy.listen()
        self._to_master = self.card.channel(self._control_plane, self._deliver, latest_lease_only)
        self._power_on()

    async def restore_power(self, fault: str) -> float:
        """What a fault did by `cut_power` is over. Returns when, in monotonic seconds."""
        self._without_power.discard(fault)
        if not self._powered and not self._without_power:
            self._power_on()
        return time.monotonic()

    def _power_on(self) -> None:
        """The kubelet comes up, registers, and starts what it still holds."""
        self._powered = True
        self._report(NodeRegistered(self._name, tuple(self._relays.items())))
        if self._kube_proxy.addresses:
            self._report(ProxyConnected(self._kube_proxy.name))
        self._while_powered = [self.spawn(self._renew_lease()), self.spawn(self._restart_pods())]

    async def cut_power(self, fault: str) -> tuple[float, list[str]]:
        """Power off: every process of the node ends at once. The links were silenced before.

        Returns when, in monotonic seconds, and the pods whose proxies ran.
        """
        self._without_power.add(fault)
        self._powered = False
        for task in self._while_powered:
            task.cancel()
        assert self._to_master is not None, "boot() comes first"
        self._to_master.drop_waiting()
        killed = [held.pod.name for held in self._pods.values() if "proxy" in held.running]
        for held in self._pods.values():
            held.ended_by.update(dict.fromkeys(held.actors, "fault"))
            self._step(held, PowerLost())
            held.running.clear()
        await self._everywhere("kill", *self._pods.values())
        return time.monotonic(), killed

    # --- the world does something to it --------------------------------------------------------------------------

    async def kill_pod(self, pod: str, due_s: float) -> float | None:
        """End every process of one pod, as `kill -9` does. Returns when, in monotonic seconds; None if none ran."""
        await until(due_s)
        held = self._pods.get(pod)
        if held is None or not held.running:
            return None
        held.ended_by.update(dict.fromkeys(held.actors, "fault"))
        await self._everywhere("kill", held)
        return time.monotonic()

    # --- the control plane wants something -----------------------------------------------------------------------

    async def take_commands(self, commands: list[NodeCommand]) -> None:
        with self.failing_loudly():
            self._take_commands(commands)

    def _take_commands(self, commands: list[NodeCommand]) -> None:
        for command in commands:
            match command:
                case StartPod(_, pod):
                    self._step(self._hold(pod), StartRequested())
                case StopPod(_, name) if name in self._pods:
                    self._step(self._pods[name], StopRequested())
                case StopPod(_, name):
                    self._report(PodStopped(self._name, name))
                case EncodedPush(self._kube_proxy.name):
                    self.spawn(self._lead(command))
                case EncodedPush(proxy, type_url, version, resources) if proxy in self._pods:
                    self._pods[proxy].actors["proxy"].actor.publish.remote(type_url, version, resources)

    async def _lead(self, push: EncodedPush) -> None:
        await self._kube_proxy.take(push.resources)
        self._report(ConfigAcked(push.proxy, push.type_url, push.version))

    # --- its pods report -----------------------------------------------------------------------------------------

    async def process_exited(self, pod: str, process: Process, life: int, code: int, last_words: str) -> None:
        """A process of a pod ended; `life` is the number that it was started with."""
        held = self._pods.get(pod)
        if held is None or held.lives.get(process) != life:
            return
        held.running.discard(process)
        if self._powered and not self._closing:
            self._record_exit(held, process, {"process": process, "code": code, "last_lines": last_words})
        with self.failing_loudly():
            self._step(held, ProcessExited(process, code))

    async def proxy_reported(self, pod: str, what: str, at_s: float, details: tuple[str, ...]) -> None:
        """The proxy connected, acknowledged or rejected configuration, or serves; `at_s` in monotonic seconds."""
        held = self._pods.get(pod)
        if held is None or not self._powered or self._closing:
            return
        with self.failing_loudly():
            match what, details:
                case "connected", ():
                    self._report(ProxyConnected(pod), at_s)
                case "acked", (type_url, version):
                    self._report(ConfigAcked(pod, type_url, version), at_s)
                case "rejected", (type_url, version, error):
                    self._report(ConfigRejected(pod, type_url, version, error), at_s)
                case "ready", ():
                    self._step(held, ProxyReady(True))
                case _:
                    raise AssertionError(f"proxy of {pod} reported {what} {details}")

    # --- the run asks --------------------------------------------------------------------------------------------

    async def running_pods(self) -> list[PodObject]:
        """Pods of which every process runs."""
        return [held.pod for held in self._pods.values() if held.running and held.running == set(held.actors)]

    async def records(self) -> list[Recorded]:
        """What was recorded since the last call."""
        events, self._events = self._events, []
        return events

    async def shut_down(self) -> None:
        """End everything in good order."""
        self._closing = True
        self._look_ahead()
        await self._everywhere("stop", *self._pods.values())
        for held in self._pods.values():
            held.dismiss()
        await self.card.unplug()

    # --- carrying out what the kubelet decides ---------------------------------------------------------------------

    def _hold(self, pod: PodObject) -> _HeldPod:
        held = self._pods.get(pod.name)
        if held is None:
            address = self._network.allocate_pod(self._name, pod.template.port)
            held = self._pods[pod.name] = _HeldPod(pod, address, PodLifecycle(pod, self._timings, self._random))
        return held

    def _step(self, held: _HeldPod, event: KubeletEvent | None) -> None:
        if self._closing:
            return
        for command in held.lifecycle.handle(event, time.monotonic()):
            self._carry_out(held, command)
        self._look_ahead()

    def _carry_out(self, held: _HeldPod, command: KubeletCommand) -> None:
        match command:
            case StartProcesses(processes):
                self.spawn(self._start(held, processes))
            case KillProcesses(processes):
                for process in processes:
                    self.spawn(self._stop(held, process))
            case RunProbe(kind, _):
                self.spawn(self._probe(held, kind))
            case Report(PodStopped() as stopped):
                held.dismiss()
                del self._pods[held.pod.name]  # the last handles of its actors go with it, and so the actors
                self._report(stopped)
            case Report(event):
                self._report(event)

    async def _start(self, held: _HeldPod, processes: tuple[Process, ...]) -> None:
        lives: dict[Process, int] = {}
        for process in processes:
            lives[process] = held.lives[process] = held.lives.get(process, 0) + 1
            held.ended_by.pop(process, None)
            if process not in held.actors:
                held.actors[process] = self._actor(held, process)
        results = await asyncio.gather(
            *(held.actors[process].ask("start", life) for process, life in lives.items()), return_exceptions=True
        )
        if not self._powered or any(held.lives[process] != life for process, life in lives.items()):
            return  # the power went off meanwhile, and perhaps on again
        failed = {process: result for process, result in zip(processes, results, strict=True) if result is not None}
        started = tuple(process for process in processes if process not in failed)
        held.running.update(started)
        self._step(held, ProcessesStarted(started, held.address))
        for process, error in failed.items():
            self._record_exit(held, process, {"process": process, "last_lines": str(error)})
            self._step(held, ProcessExited(process, 127))

    async def _stop(self, held: _HeldPod, process: Process) -> None:
        # One that runs reports its own end, after which it may have been started again.
        reports_itself = process in held.running
        if process in held.actors:
            held.ended_by.setdefault(process, "kubelet")
            with contextlib.suppress(ActorLost):
                await held.actors[process].ask("stop")
        if not reports_itself:
            self._step(held, ProcessExited(process, 0))

    async def _probe(self, held: _HeldPod, kind: ProbeKind) -> None:
        template = held.pod.template
        probe = template.readiness if kind == "readiness" else template.liveness
        assert probe is not None, f"{held.pod.name} has no {kind} probe"
        env: dict[str, str] = {}
        if probe.kind == "exec":
            _, env = command_line(held.pod, held.address, 0, self._kube_proxy.addresses, self._folders.logs)
            env = {**self._folders.container_environment(), **env}
        ok, message = await run_probe(probe, held.address.app, env)
        self._step(held, ProbeFinished(kind, ok, message))

    async def _everywhere(self, method: str, *pods: _HeldPod) -> None:
        """Ask all actors of these pods. One that is lost does not hear; those who watch know of it."""
        asked = (actor.ask(method) for held in pods for actor in held.actors.values())
        for answer in await asyncio.gather(*asked, return_exceptions=True):
            if isinstance(answer, BaseException) and not isinstance(answer, ActorLost):
                raise answer

    def _actor(self, held: _HeldPod, process: Process) -> Watched:
        what = "sidecar" if process == "proxy" else "container"
        title = f"the supervisor of pod {held.pod.name} ({what}) on node {self._name}"
        return Watched(self._new_actor(held, process), title, self.report_defect)

    def report_defect(self, what: str) -> None:
        if not self._closing:
            super().report_defect(what)

    def _new_actor(self, held: _HeldPod, process: Process) -> Actor:
        if process == "proxy":
            return self._supervisor(Sidecar, held.pod.name)
        # Every pod draws numbers of its own from the run's seed.
        self._started_pods += 1
        seed = Random(f"{self._seed}/{self._name}/{self._started_pods}").getrandbits(32)
        services = self._kube_proxy.addresses
        return self._supervisor(Pod, held.pod, held.address, seed, services)

    def _supervisor(self, kind: type, *arguments: object) -> Actor:
        match self._hosting:
            case "actor":
                return start_actor(kind, this_actor(), self._folders, *arguments)
            case "node":
                return in_process(kind, handle_of(self), self._folders, *arguments)

    # --- time and messages -----------------------------------------------------------------------------------------

    def _look_ahead(self) -> None:
        """Wake up at the next deadline of any pod."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        # What is due is not done any more while it closes: to wake up for it would take a whole core from who ends.
        at_work = self._powered and not self._closing
        deadlines = [held.lifecycle.next_deadline() for held in self._pods.values()] if at_work else []
        due_s = min((deadline for deadline in deadlines if deadline is not None), default=None)
        if due_s is not None:
            self._timer = asyncio.get_running_loop().call_later(max(0.0, due_s - time.monotonic()), self._advance)

    def _advance(self) -> None:
        now_s = time.monotonic()
        with self.failing_loudly():
            for held in list(self._pods.values()):
                due_s = held.lifecycle.next_deadline()
                if due_s is not None and due_s <= now_s:
                    self._step(held, None)
            self._look_ahead()

    async def _restart_pods(self) -> None:
        for held in list(self._pods.values()):
            if held.pod.name in self._pods:  # else it was stopped while others started
                self._step(held, PowerRestored())
                await asyncio.sleep(RESTART_SPACING_S)

    async def _renew_lease(self) -> None:
        while not self._closing:
            self._report(LeaseRenewed(self._name))
            await asyncio.sleep(self._timings.lease_renew_s)

    def _report(self, event: Event, at_s: float | None = None) -> None:
        if self._powered and not self._closing and self._to_master is not None:
            self._to_master.send(Reported(event, time.monotonic() if at_s is None else at_s))

    async def _deliver(self, reports: list[Reported]) -> None:
        await tell(self._master, "report", self._name, time.monotonic(), reports)

    def _record_exit(self, held: _HeldPod, process: Process, details: dict[str, Any]) -> None:
        known = {"program": held.program(process), "by": held.ended_by.get(process)}
        self._record("Pod", held.pod.name, "ProcessExited", details | known)

    def _record(self, kind: str, name: str, reason: str, details: dict[str, Any]) -> None:
        self._events.append(Recorded(time.monotonic(), self._name, kind, name, reason, details))
