"""What the leader of the control plane runs: the API server's writes, and the controllers that follow from them.

Owns the order in which events are taken in and controllers run. What each of them decides is in its own module. Who is
told configuration is `delivery`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from testbed.control import api_server
from testbed.control.kubernetes import deployments, endpoints, scheduler
from testbed.control.kubernetes.node_health import NodeHealth
from testbed.control.messages import (
    Apply,
    Command,
    Delete,
    LeaseRenewed,
    NodeEvent,
    NodeRegistered,
    PodReadinessChanged,
    PodStarted,
    PodStopped,
    RecordEvent,
    StopPod,
)
from testbed.control.store import Store
from testbed.objects.core import Node, Pod
from testbed.objects.timings import Timings

MAX_ROUNDS = 10
"""Controllers settle in two or three rounds, whatever the size of the cluster; more is a pair that undo each other."""

_EVENT_REASONS = {"Unhealthy": "Unhealthy", "CrashLoopBackOff": "BackOff"}
"""What a kubelet gives as a pod's reason (`Reason: message`) -> the reason of the event that Kubernetes records."""

Controller = Callable[[Store, float], list[Command]]


class Controllers:
    """`handle` what users and nodes say when it arrives, and nothing when `next_deadline()` has come.

    `now` is in seconds, from any origin, and never goes back. The same calls give the same commands.
    """

    def __init__(self, timings: Timings, store: Store, *, acting: bool = True) -> None:
        """As long as they are not `acting`, what is said is written into the store, and nothing follows from it."""
        self._store = store
        self._node_health = NodeHealth(timings)
        self._acting = acting
        self._all_registered = False
        self._deadline_s: float | None = None

    @property
    def store(self) -> Store:
        """For reading."""
        return self._store

    def resume(self, now: float) -> list[Command]:
        """Act from now on, on what others have left in the store.

        It is believed until nodes say better: they get the time that they have to renew a lease.
        """
        self._acting = True
        self._node_health.resume(self._store, now)
        return self._settle(now)

    def stop(self) -> None:
        """Act no more, until `resume`."""
        self._acting = False
        self._deadline_s = None

    def handle(self, events: Sequence[NodeEvent | Apply | Delete], now: float) -> list[Command]:
        """What is to be done because of events, none of which has followed from another, or of `now` alone.

        Raises Refused for what cannot be applied or deleted; then nothing has changed.
        """
        for event in events:
            if isinstance(event, Apply):
                api_server.check(self._store, event)
        commands: list[Command] = []
        changed = False
        for event in events:
            before = self._store.version
            told = self._take_in(event, now)
            changed |= self._store.version != before and not (isinstance(event, LeaseRenewed) and not told)
            commands += told
        if self._acting and (changed or (self._deadline_s is not None and now >= self._deadline_s)):
            commands += self._settle(now)
        return commands

    def next_deadline(self) -> float | None:
        """When to call `handle([], now)` at the latest; None while only an event can change anything."""
        return self._deadline_s

    def _settle(self, now: float) -> list[Command]:
        commands = self._reconcile(now)
        self._deadline_s = self._node_health.next_deadline(self._store)
        return commands

    def _take_in(self, event: NodeEvent | Apply | Delete, now: float) -> list[Command]:
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
                return self._node_health.register(self._store, event, now)
            case LeaseRenewed():
                return self._node_health.renew(self._store, event, now)
            case PodStarted() | PodReadinessChanged() | PodStopped():
                return self._take_in_pod(event)

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
            nodes = self._store.list(Node)
            self._all_registered = bool(nodes) and all(node.lease_renewed_s is not None for node in nodes)
        workloads: tuple[Controller, ...] = (deployments.reconcile, scheduler.schedule) if self._all_registered else ()
        return self._node_health.reconcile, *workloads, endpoints.reconcile
