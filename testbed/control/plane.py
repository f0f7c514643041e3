"""The control plane: API server, controllers and istiod as one state machine without I/O.

Owns the order in which events are taken in and controllers run. What each of them decides is in its own module;
sending, waiting and clocks are `emulation`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from testbed.control import api_server
from testbed.control.delivery.discovery import Discovery
from testbed.control.kubernetes import deployments, endpoints, scheduler
from testbed.control.kubernetes.node_health import NodeHealth
from testbed.control.messages import (
    Apply,
    Command,
    ConfigAcked,
    ConfigRejected,
    Delete,
    Event,
    LeaseRenewed,
    NodeRegistered,
    PodReadinessChanged,
    PodStarted,
    PodStopped,
    ProxyConnected,
    RecordEvent,
    StopPod,
)
from testbed.control.overview import NodeStatus, Overview, PodStatus
from testbed.control.store import Store
from testbed.control.views.kube_proxy import kube_proxy_name
from testbed.control.waiting import Waiting
from testbed.objects.cells import Layer
from testbed.objects.cluster import Declared
from testbed.objects.core import EndpointSlice, Node, Pod
from testbed.objects.places import CLIENTS
from testbed.objects.timings import Timings
from testbed.objects.workloads import Deployment, MeshMode

MAX_ROUNDS = 10
"""Controllers settle in two or three rounds, whatever the size of the cluster; more is a pair that undo each other."""

_EVENT_REASONS = {"Unhealthy": "Unhealthy", "CrashLoopBackOff": "BackOff"}
"""What a kubelet gives as a pod's reason (`Reason: message`) -> the reason of the event that Kubernetes records."""

Controller = Callable[[Store, float], list[Command]]


@dataclass(frozen=True, slots=True)
class Behind:
    """Pods whose proxies do not have all that they should have: those that are ready, and those that are not, as far as
    the control plane knows."""

    ready: tuple[str, ...]
    unready: tuple[str, ...]


class ControlPlane:
    """`handle` every event when it arrives, and None when `next_deadline()` has come; carry out what it returns.

    `now` is in seconds, from any origin, and never goes back. The same calls give the same commands.
    """

    def __init__(
        self, timings: Timings, mesh_mode: MeshMode, clients: Sequence[str] = (), store: Store | None = None
    ) -> None:
        """Nothing is declared yet: `Apply` does that, then and later. `clients` are told where gateways are.

        `store` is what another control plane has left; `resume` goes on from there.
        """
        self._clients = tuple(clients)
        self._store = Store() if store is None else store
        self._node_health = NodeHealth(timings)
        self._discovery = Discovery(timings, mesh_mode, clients)
        self._all_registered = False
        self._coming_up = True
        self._deadline_s: float | None = None

    def resume(self, now: float) -> list[Command]:
        """Go on with what the store holds, which another control plane has left.

        It believes the store until it hears better: nodes get the time that they have to renew a lease, endpoints are
        those of before, and nobody is told anything until they connect.
        """
        self._node_health.resume(self._store, now)
        self._coming_up = not self.pods()
        return self._settle(now)

    def apply(self, objects: Iterable[Declared], now: float) -> list[Command]:
        """Several objects, before anything follows from any of them. Raises Refused; then none is applied."""
        events = [Apply(each) for each in objects]
        for event in events:
            api_server.check(self._store, event)
        return self._handle(events, now)

    def handle(self, event: Event | None, now: float) -> list[Command]:
        """What is to be done because of an event, or of `now` alone.

        Raises Refused for what cannot be applied or deleted.
        """
        return self._handle([] if event is None else [event], now)

    def _handle(self, events: Sequence[Event], now: float) -> list[Command]:
        commands: list[Command] = []
        settled = True
        for event in events:
            before = self._store.version
            told = self._take_in(event, now)
            changed = self._store.version != before and not (isinstance(event, LeaseRenewed) and not told)
            settled = settled and not changed and not isinstance(event, ProxyConnected)
            commands += told
        due = self._deadline_s is not None and now >= self._deadline_s
        if settled and not due:
            return commands
        return commands + self._settle(now)

    def _settle(self, now: float) -> list[Command]:
        commands = self._reconcile(now)
        commands += self._discovery.reconcile(self._store, now, coming_up=self._is_coming_up())
        deadlines = (self._node_health.next_deadline(self._store), self._discovery.next_deadline())
        self._deadline_s = min((deadline for deadline in deadlines if deadline is not None), default=None)
        return commands

    def _is_coming_up(self) -> bool:
        """Until all pods that are declared were ready for the first time.

        Nobody is served before. The work of telling everyone of every pod that becomes ready grows with the square of
        their number, and all proxies share a machine, as only here: they would take it from the pods that start.
        """
        if self._coming_up:
            wanted = sum(deployment.replicas for deployment in self._store.list(Deployment))
            ready = sum(pod.ready for pod in self.pods())
            self._coming_up = not wanted or ready < wanted
        return self._coming_up

    def next_deadline(self) -> float | None:
        """When to call `handle(None, now)` at the latest; None while only an event can change anything."""
        return self._deadline_s

    @property
    def store(self) -> Store:
        """For reading."""
        return self._store

    def nodes(self) -> tuple[Node, ...]:
        return self._store.list(Node)

    def pods(self) -> tuple[Pod, ...]:
        """All pods, Terminating ones too, in the order of their creation."""
        return self._store.list(Pod)

    def endpoint_slices(self) -> tuple[EndpointSlice, ...]:
        return self._store.list(EndpointSlice)

    def all_ready(self) -> bool:
        return not self.not_ready()

    def not_ready(self) -> list[Waiting]:
        """Everything that is not as declared, with the reason; empty when the cluster is up."""
        waiting: list[Waiting] = []
        for node in self.nodes():
            if node.lease_renewed_s is None:
                waiting.append(Waiting("node", node.name, "not registered"))
            elif node.ready != "True":
                waiting.append(Waiting("node", node.name, f"{node.ready}, its lease expired"))
            elif problem := self._discovery.not_in_sync(kube_proxy_name(node.name)):
                waiting.append(Waiting("node", node.name, f"kube-proxy {problem}"))
        pods = [pod for pod in self.pods() if pod.phase != "Terminating"]
        for deployment in self._store.list(Deployment):
            own = [p for p in pods if (p.namespace, p.deployment) == (deployment.namespace, deployment.name)]
            of_before = sum(pod.template != deployment.template for pod in own)
            if len(own) != deployment.replicas:
                created = f"{len(own)} of {deployment.replicas} pods created"
                waiting.append(Waiting("deployment", deployment.name, created))
            elif of_before:
                before = f"{of_before} pods still of its former template"
                waiting.append(Waiting("deployment", deployment.name, before))
        waiting += [Waiting("pod", pod.name, why, pod.node or "") for pod in pods if (why := self._problem(pod))]
        clients = ((name, self._discovery.not_in_sync(name)) for name in self._clients)
        waiting += [
            Waiting("zone", name.removeprefix(CLIENTS), f"its clients' list of gateways {problem}")
            for name, problem in clients
            if problem
        ]
        if not waiting and self._discovery.next_deadline() is not None:
            return [Waiting("push", "of what changed last", "due as soon as things are quiet")]
        return waiting

    def behind(self, layer: Layer) -> Behind:
        """Which proxies of a layer do not have all that they should have."""
        due = self._discovery.next_deadline() is not None
        behind = [
            pod
            for pod in self.pods()
            if pod.phase != "Terminating"
            and pod.template.has_proxy
            and pod.template.is_entered == (layer == "gateways")
            and (due or self._discovery.not_in_sync(pod.name) is not None)
        ]
        there = tuple(pod.name for pod in behind if pod.ready)
        return Behind(there, tuple(pod.name for pod in behind if not pod.ready))

    def overview(self) -> Overview:
        """Every node and pod, as the control plane knows them."""
        pods = self.pods()
        return Overview(
            tuple(
                NodeStatus(node.name, node.locality.zone, node.ready, sum(pod.node == node.name for pod in pods))
                for node in self.nodes()
            ),
            tuple(
                PodStatus(
                    pod.name,
                    pod.node,
                    pod.phase,
                    pod.ready,
                    pod.restarts,
                    "" if pod.ready else pod.reason,
                    (self._discovery.not_in_sync(pod.name) or "in sync") if pod.template.has_proxy else None,
                )
                for pod in pods
            ),
        )

    def _problem(self, pod: Pod) -> str | None:
        if pod.node is None:
            return f"unschedulable: {pod.reason}"
        if pod.phase == "Pending":
            return f"waiting for node {{node}} to start it: {pod.reason}"
        out_of_sync = self._discovery.not_in_sync(pod.name) if pod.template.has_proxy else None
        if not pod.ready:
            node = self._store.get(Node, pod.node)
            told = "no readiness reported yet" if node.ready == "True" else f"its node is {node.ready}"
            reason = pod.reason or told
            return f"started on {{node}}, not ready: {reason}" + (f"; proxy {out_of_sync}" if out_of_sync else "")
        return f"proxy {out_of_sync}" if out_of_sync else None

    def _take_in(self, event: Event, now: float) -> list[Command]:
        match event:
            case Apply():
                return api_server.apply(self._store, event)
            case Delete():
                return api_server.delete(self._store, event)
            case NodeRegistered() | LeaseRenewed() if self._store.find(Node, event.node) is None:
                # It was deleted, and its kubelet does not know. It is taken in again when it registers after the node
                # is applied again.
                return []
            case NodeRegistered():
                self._discovery.disconnect(self._store, event.node)
                return self._node_health.register(self._store, event, now)
            case LeaseRenewed():
                return self._node_health.renew(self._store, event, now)
            case PodStarted() | PodReadinessChanged() | PodStopped():
                return self._take_in_pod(event)
            case ProxyConnected():
                return self._discovery.connect(self._store, event)
            case ConfigAcked():
                self._discovery.acked(event)
                return []
            case ConfigRejected():
                return self._discovery.rejected(event)

    def _take_in_pod(self, event: PodStarted | PodReadinessChanged | PodStopped) -> list[Command]:
        pod = self._store.find(Pod, event.pod)
        if pod is None or pod.node != event.node:
            # As a kubelet does with what the API server does not know. It has said that a stopped pod is gone already.
            return [] if isinstance(event, PodStopped) else [StopPod(event.node, event.pod)]
        match event:
            case PodStopped():
                self._store.delete(Pod, pod.name)
                return [RecordEvent("Pod", pod.name, "Killing", {"node": pod.node})]
            case PodStarted():
                started = replace(
                    pod,
                    phase="Terminating" if pod.phase == "Terminating" else "Running",
                    address=event.address,
                    restarts=event.restarts,
                    containers_ready=False,
                    ready=False,
                    reason="",
                )
                self._store.put(started)
                details = {"node": pod.node, "restarts": event.restarts}
                return [RecordEvent("Pod", pod.name, "Started", details)]
            case PodReadinessChanged():
                if pod.phase == "Pending":
                    return []
                self._store.put(replace(pod, containers_ready=event.ready, reason=event.reason))
                reason = _EVENT_REASONS.get(event.reason.partition(":")[0], "ContainersNotReady")
                coming_up = reason == "ContainersNotReady" and not pod.containers_ready
                if event.ready or coming_up:
                    return []
                details = {"node": pod.node, "message": event.reason}
                return [RecordEvent("Pod", pod.name, reason, details)]

    def _reconcile(self, now: float) -> list[Command]:
        commands: list[Command] = []
        for _ in range(MAX_ROUNDS):
            before = self._store.version
            for controller in self._controllers():
                commands += controller(self._store, now)
            if self._store.version == before:
                return commands
        raise AssertionError(f"controllers did not settle within {MAX_ROUNDS} rounds at {now} s: {commands[-5:]}")

    def _controllers(self) -> tuple[Controller, ...]:
        """In the order of cause and effect.

        Pods are created once every node has registered that was declared before, as one applies manifests to a cluster
        that is up: so placement does not depend on which kubelet came first.
        """
        if not self._all_registered:
            nodes = self.nodes()
            self._all_registered = bool(nodes) and all(node.lease_renewed_s is not None for node in nodes)
        workloads: tuple[Controller, ...] = (deployments.reconcile, scheduler.schedule) if self._all_registered else ()
        return self._node_health.reconcile, *workloads, endpoints.reconcile
