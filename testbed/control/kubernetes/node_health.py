"""Missed heartbeats -> nodes Unknown, their pods not ready, and after the toleration evicted.

Owns the Ready condition and the unreachable taint of nodes, the Ready condition of pods, and eviction, also of what is
left on a node that was deleted. The rules are
those of kube-controller-manager's node lifecycle controller (pkg/controller/nodelifecycle/node_lifecycle_controller.go)
and taint eviction controller (pkg/controller/tainteviction), with their default flags.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

from testbed.control.kubernetes.deployments import terminate
from testbed.control.messages import Command, LeaseRenewed, NodeRegistered, PodListed, RecordEvent, StartPod, StopPod
from testbed.control.store import Store
from testbed.objects.core import Node, Pod
from testbed.objects.timings import Timings

UNHEALTHY_ZONE_THRESHOLD = 0.55
LARGE_CLUSTER_NODES = 50
SECONDARY_EVICTION_RATE_FACTOR = 0.1
"""--secondary-node-eviction-rate (0.01/s) as a share of --node-eviction-rate (0.1/s)."""
NODE_REBOOTED = "ContainerCreating: its node booted"

ZoneState = Literal["Normal", "PartialDisruption", "FullDisruption"]


def zone_state(nodes: Iterable[Node]) -> ZoneState:
    """ComputeZoneState: full without any ready node, partial from 55 % (and more than two) not ready nodes on."""
    conditions = [node.ready == "True" for node in nodes]
    not_ready = conditions.count(False)
    if not_ready == len(conditions):
        return "FullDisruption"
    if not_ready > 2 and not_ready / len(conditions) >= UNHEALTHY_ZONE_THRESHOLD:
        return "PartialDisruption"
    return "Normal"


class _TaintLimiter:
    """A token bucket of size one for one zone; a change of rate drains it if it was waiting (SwapLimiter)."""

    def __init__(self, rate_per_s: float) -> None:
        self._rate_per_s = rate_per_s
        self._next_s = 0.0

    @property
    def next_s(self) -> float | None:
        """From when on the next node may be tainted; None while none may."""
        return self._next_s if self._rate_per_s else None

    def take(self, now: float) -> None:
        self._next_s = now + 1 / self._rate_per_s

    def swap(self, rate_per_s: float, now: float) -> None:
        if rate_per_s == self._rate_per_s:
            return
        waiting = not self._rate_per_s or now < self._next_s
        self._rate_per_s = rate_per_s
        if rate_per_s and waiting:
            self.take(now)


class NodeHealth:
    """The controller. Its own state is only what is no object's: the monitor's clock, zone states and rate limits."""

    def __init__(self, timings: Timings) -> None:
        self._timings = timings
        self._next_check_s: float | None = None
        self._states: dict[str, ZoneState] = {}
        self._limiters: dict[str, _TaintLimiter] = {}

    # --- what a kubelet says ---

    def resume(self, store: Store, now: float) -> None:
        """Take over what another control plane had: heartbeats are not handed on, so that nodes have as long as ever
        from now on until they are missed (monitorNodeHealth, too, counts from when it first sees a node itself). Nor
        are the times of taints, by a clock that may be another's: tolerations count from now on, as in a
        taint-eviction-controller that sees the taint for the first time."""
        for node in store.list(Node):
            if _has_registered(node):
                since_s = None if node.unreachable_since_s is None else now
                store.put(replace(node, lease_renewed_s=now, unreachable_since_s=since_s))
                self._next_check_s = now + self._timings.node_monitor_s

    def register(self, store: Store, event: NodeRegistered, now: float) -> list[Command]:
        """A first registration makes the node Ready. After a reboot nothing runs there until PodStarted, otherwise what
        it lists.

        The kubelet is told again what it should run and what not; it ignores what it knows.
        """
        if self._next_check_s is None:
            self._next_check_s = now + self._timings.node_monitor_s
        node = store.get(Node, event.node)
        self._limiter(node.locality.zone)
        store.put(replace(node, ready="True", lease_renewed_s=now, unreachable_since_s=None, relays=event.relays))
        commands: list[Command] = []
        if event.booted or node.ready != "True":
            rebooted = event.booted and _has_registered(node)
            commands.append(RecordEvent("Node", node.name, "NodeReady", {"rebooted": rebooted}))
        listed = {pod.name: pod for pod in event.pods}
        for pod in store.list(Pod):
            if pod.node != node.name:
                continue
            found = listed.pop(pod.name, None)
            if pod.phase == "Terminating":
                commands.append(StopPod(node.name, pod.name))
            else:
                pod = _not_running(pod) if found is None else _as_listed(pod, found)
                store.put(pod)
                commands.append(StartPod(node.name, pod))
        return commands + [StopPod(node.name, unknown) for unknown in listed]

    def renew(self, store: Store, event: LeaseRenewed, now: float) -> list[Command]:
        """Keeps a node Ready, and makes one that came back Ready again. Ignored before its registration."""
        node = store.get(Node, event.node)
        if not _has_registered(node):
            return []
        store.put(replace(node, ready="True", lease_renewed_s=now, unreachable_since_s=None))
        return [] if node.ready == "True" else [RecordEvent("Node", node.name, "NodeReady", {"rebooted": False})]

    # --- what time brings ---

    def reconcile(self, store: Store, now: float) -> list[Command]:
        commands = _collect_orphans(store)
        if self._next_check_s is not None and now >= self._next_check_s:
            commands += self._monitor(store, now)
            missed = (now - self._next_check_s) // self._timings.node_monitor_s
            self._next_check_s += (missed + 1) * self._timings.node_monitor_s
        self._taint(store, now)
        return commands + self._evict(store, now) + _update_pod_readiness(store)

    def next_deadline(self, store: Store) -> float | None:
        """The next monitor round, taint or eviction."""
        deadlines = [self._next_check_s]
        deadlines += [self._limiter(zone).next_s for zone, _ in self._untainted(store)]
        deadlines += [evict_s for _, evict_s in self._evictions(store)]
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def _monitor(self, store: Store, now: float) -> list[Command]:
        """One round of monitorNodeHealth, then handleDisruption."""
        commands: list[Command] = []
        for node in store.list(Node):
            if node.ready == "True" and node.lease_renewed_s is not None:
                expires_s = node.lease_renewed_s + self._timings.lease_grace_s
                if now > expires_s:
                    store.put(replace(node, ready="Unknown"))
                    details = {"lease_age_s": now - node.lease_renewed_s, "status": "Unknown"}
                    commands.append(RecordEvent("Node", node.name, "NodeNotReady", details))
        return commands + self._handle_disruption(store, now)

    def _handle_disruption(self, store: Store, now: float) -> list[Command]:
        """Sets the rate of taints for each zone.

        A dead zone beside living ones is evicted at the normal rate; a partly dead one slowly or, when small, not at
        all; and when no zone has a ready node, the master itself is what is cut off: all taints go and none is put on.
        """
        by_zone: dict[str, list[Node]] = {}
        for node in store.list(Node):
            by_zone.setdefault(node.locality.zone, []).append(node)
        new = {zone: zone_state(nodes) for zone, nodes in by_zone.items()}
        all_disrupted = all(state == "FullDisruption" for state in new.values())
        if all_disrupted:
            for node in store.list(Node):
                store.put(replace(node, unreachable_since_s=None))
        commands: list[Command] = []
        for zone, state in new.items():
            rate_per_s = 0.0 if all_disrupted else self._rate_per_s(state, len(by_zone[zone]))
            self._limiter(zone).swap(rate_per_s, now)
            if state != self._states.get(zone, "Normal"):
                details = {"state": state, "evictions_per_s": rate_per_s}
                commands.append(RecordEvent("Zone", zone, "ZoneStateChanged", details))
        self._states = new
        return commands

    def _limiter(self, zone: str) -> _TaintLimiter:
        return self._limiters.setdefault(zone, _TaintLimiter(self._timings.eviction_rate_per_s))

    def _rate_per_s(self, state: ZoneState, nodes: int) -> float:
        if state != "PartialDisruption":
            return self._timings.eviction_rate_per_s
        if nodes > LARGE_CLUSTER_NODES:
            return self._timings.eviction_rate_per_s * SECONDARY_EVICTION_RATE_FACTOR
        return 0.0

    def _untainted(self, store: Store) -> list[tuple[str, Node]]:
        """Unknown nodes that wait for their NoExecute taint, the first of every zone: longest without a lease first."""
        first: dict[str, Node] = {}
        for node in store.list(Node):
            if node.ready == "Unknown" and node.unreachable_since_s is None:
                zone = node.locality.zone
                first[zone] = min(first.get(zone, node), node, key=lambda node: node.lease_renewed_s or 0.0)
        return list(first.items())

    def _taint(self, store: Store, now: float) -> None:
        """Puts the NoExecute taint on. It is this, not the eviction, that the zone's rate limits."""
        for zone, node in self._untainted(store):
            next_s = self._limiter(zone).next_s
            if next_s is not None and now >= next_s:
                store.put(replace(node, unreachable_since_s=now))
                self._limiter(zone).take(now)

    def _evictions(self, store: Store) -> list[tuple[Pod, float]]:
        """The pods on tainted nodes, each with the time at which its toleration ends.

        The DaemonSet controller lets its pods tolerate the taint for ever.
        """
        tainted = {node.name: node.unreachable_since_s for node in store.list(Node)}
        tolerated_s = self._timings.unreachable_toleration_s
        return [
            (pod, since_s + tolerated_s)
            for pod in store.list(Pod)
            if pod.node is not None and pod.phase != "Terminating" and (since_s := tainted[pod.node]) is not None
            if pod.template.role != "node-proxy"
        ]

    def _evict(self, store: Store, now: float) -> list[Command]:
        commands: list[Command] = []
        for pod, evict_s in self._evictions(store):
            if now >= evict_s:
                commands.append(RecordEvent("Pod", pod.name, "TaintManagerEviction", {"node": pod.node}))
                commands += terminate(store, pod)
        return commands


def _has_registered(node: Node) -> bool:
    return node.lease_renewed_s is not None


def _not_running(pod: Pod) -> Pod:
    return replace(pod, phase="Pending", ready=False, containers_ready=False, address=None, reason=NODE_REBOOTED)


def _as_listed(pod: Pod, found: PodListed) -> Pod:
    return replace(
        pod,
        phase="Running",
        address=found.address,
        restarts=found.restarts,
        containers_ready=found.ready,
        reason=found.reason,
    )


def _collect_orphans(store: Store) -> list[Command]:
    """Pods of nodes that were deleted are gone at once (PodGC, without its quarantine of 40 s); should the machine be
    there all the same, its kubelet is told to stop them."""
    commands: list[Command] = []
    nodes = {node.name for node in store.list(Node)}
    for pod in store.list(Pod):
        if pod.node is not None and pod.node not in nodes:
            store.delete(Pod, pod.name)
            commands += [
                RecordEvent("Pod", pod.name, "DeletionByPodGC", {"node": pod.node}),
                StopPod(pod.node, pod.name),
            ]
    return commands


def _update_pod_readiness(store: Store) -> list[Command]:
    """Combines what the kubelet said last with the state of its node.

    The pods of an Unknown node turn not ready (MarkPodsNotReady) although they may well run; when the node is back,
    what its kubelet said last holds again, as the kubelet's next status sync would establish.
    """
    ready_nodes = {node.name: node.ready == "True" for node in store.list(Node)}
    commands: list[Command] = []
    for pod in store.list(Pod):
        node_ready = pod.node is not None and ready_nodes[pod.node]
        ready = pod.containers_ready and pod.phase == "Running" and node_ready
        if ready != pod.ready:
            store.put(replace(pod, ready=ready))
            reason = "Ready" if ready else "NotReady" if node_ready else "NodeNotReady"
            commands.append(RecordEvent("Pod", pod.name, reason, {"node": pod.node}))
    return commands
