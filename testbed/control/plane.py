"""The control plane: API server, controllers and istiod as one state machine without I/O.

Owns the order in which events are taken in and controllers run. What each of them decides is in its own module;
sending, waiting and clocks are `emulation`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from testbed.control import deployments, endpoints, scheduler
from testbed.control.discovery import Discovery
from testbed.control.kube_proxy import kube_proxy_name, node_of
from testbed.control.messages import (
    Command,
    ConfigAcked,
    ConfigRejected,
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
from testbed.control.node_health import NodeHealth
from testbed.control.objects import ClusterSpec, Deployment, EndpointSlice, Node, Pod
from testbed.control.store import Store

MAX_ROUNDS = 10
"""Controllers settle in two or three rounds, whatever the size of the cluster; more is a pair that undo each other."""

_EVENT_REASONS = {"Unhealthy": "Unhealthy", "CrashLoopBackOff": "BackOff"}
"""What a kubelet gives as a pod's reason (`Reason: message`) -> the reason of the event that Kubernetes records."""

Controller = Callable[[Store, float], list[Command]]


class ControlPlane:
    """`handle` every event when it arrives, and None when `next_deadline()` has come; carry out what it returns.

    `now` is in seconds, from any origin, and never goes back. The same calls give the same commands.
    """

    def __init__(self, cluster: ClusterSpec) -> None:
        self._store = Store()
        for node in cluster.nodes:
            self._store.put(node)
        for service in cluster.services:
            self._store.put(service)
        for deployment in cluster.deployments:
            self._store.put(deployment)
        self._node_health = NodeHealth((node.locality.zone for node in cluster.nodes), cluster.timings)
        self._discovery = Discovery(cluster)
        self._kube_proxies = cluster.mesh_mode == "none"
        self._all_registered = False
        self._deadline_s: float | None = None

    def handle(self, event: Event | None, now: float) -> list[Command]:
        """What is to be done because of an event, or of `now` alone. Raises KeyError for an undeclared node."""
        before = self._store.version
        commands = self._take_in(event, now)
        settled = self._store.version == before or (isinstance(event, LeaseRenewed) and not commands)
        due = self._deadline_s is not None and now >= self._deadline_s
        if settled and not due and not isinstance(event, ProxyConnected):
            return commands
        commands += self._reconcile(now)
        commands += self._discovery.reconcile(self._store, now)
        deadlines = (self._node_health.next_deadline(self._store), self._discovery.next_deadline())
        self._deadline_s = min((deadline for deadline in deadlines if deadline is not None), default=None)
        return commands

    def next_deadline(self) -> float | None:
        """When to call `handle(None, now)` at the latest; None while only an event can change anything."""
        return self._deadline_s

    def nodes(self) -> tuple[Node, ...]:
        return self._store.list(Node)

    def pods(self) -> tuple[Pod, ...]:
        """All pods, Terminating ones too, in the order of their creation."""
        return self._store.list(Pod)

    def endpoint_slices(self) -> tuple[EndpointSlice, ...]:
        return self._store.list(EndpointSlice)

    def all_ready(self) -> bool:
        return not self.not_ready()

    def not_ready(self) -> list[str]:
        """One line for everything that is not as declared, with the reason; empty when the cluster is up."""
        lines: list[str] = []
        for node in self.nodes():
            if node.lease_renewed_s is None:
                lines.append(f"node {node.name}: not registered")
            elif node.ready != "True":
                lines.append(f"node {node.name}: {node.ready}, its lease expired")
            elif self._kube_proxies and (problem := self._discovery.not_in_sync(kube_proxy_name(node.name))):
                lines.append(f"node {node.name}: kube-proxy {problem}")
        pods = [pod for pod in self.pods() if pod.phase != "Terminating"]
        for deployment in self._store.list(Deployment):
            count = sum(pod.deployment == deployment.name for pod in pods)
            if count != deployment.replicas:
                lines.append(f"deployment {deployment.name}: {count} of {deployment.replicas} pods created")
        return lines + [f"pod {pod.name}: {problem}" for pod in pods if (problem := self._problem(pod))]

    def _problem(self, pod: Pod) -> str | None:
        if pod.node is None:
            return f"unschedulable: {pod.reason}"
        if pod.phase == "Pending":
            return f"waiting for node {pod.node} to start it: {pod.reason}"
        out_of_sync = self._discovery.not_in_sync(pod.name) if pod.template.has_proxy else None
        if not pod.ready:
            node = self._store.get(Node, pod.node)
            told = "no readiness reported yet" if node.ready == "True" else f"its node is {node.ready}"
            reason = pod.reason or told
            return f"started on {pod.node}, not ready: {reason}" + (f"; proxy {out_of_sync}" if out_of_sync else "")
        return f"proxy {out_of_sync}" if out_of_sync else None

    def _take_in(self, event: Event | None, now: float) -> list[Command]:
        match event:
            case None:
                return []
            case NodeRegistered():
                self._discovery.disconnect(kube_proxy_name(event.node))
                for pod in self.pods():
                    if pod.node == event.node:
                        self._discovery.disconnect(pod.name)
                return self._node_health.register(self._store, event, now)
            case LeaseRenewed():
                return self._node_health.renew(self._store, event, now)
            case PodStarted() | PodReadinessChanged() | PodStopped():
                return self._take_in_pod(event)
            case ProxyConnected():
                known = self._store.find(Pod, event.proxy) or node_of(event.proxy)
                return self._discovery.connect(event) if known else []
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
                self._discovery.forget(pod.name)
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

        Deployments are applied once every node has registered, as one applies manifests to a cluster that is up: so
        placement does not depend on which kubelet came first.
        """
        self._all_registered = self._all_registered or all(node.lease_renewed_s is not None for node in self.nodes())
        workloads: tuple[Controller, ...] = (deployments.reconcile, scheduler.schedule) if self._all_registered else ()
        return self._node_health.reconcile, *workloads, endpoints.reconcile
