"""Pending pods -> nodes: kube-scheduler's filters that matter here, and a score that spreads.

Owns the binding of a pod, once and for ever. A pod that fits nowhere says why in kube-scheduler's words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from testbed.control.messages import Command, RecordEvent, StartPod
from testbed.control.store import Store
from testbed.objects.core import Node, Pod
from testbed.objects.workloads import PodTemplate

UNSCHEDULABLE = "node(s) were unschedulable"
UNREACHABLE = "node(s) had untolerated taint {node.kubernetes.io/unreachable: }"
NOT_READY = "node(s) had untolerated taint {node.kubernetes.io/not-ready: }"
WRONG_NODE = "node(s) didn't match Pod's node affinity/selector"
TOO_MANY_PODS = "Too many pods"
SKEWED = "node(s) didn't match pod topology spread constraints"
WAITING_FOR_KUBELET = "ContainerCreating"


def schedule(store: Store, now: float) -> list[Command]:
    """Binds every unbound pod that fits somewhere, in the order of creation; the others get the reason why not."""
    commands: list[Command] = []
    pending = [pod for pod in store.list(Pod) if pod.node is None]
    if not pending:
        return commands
    nodes = store.list(Node)
    placement = _Placement(nodes, store.list(Pod))
    for pod in pending:
        fitting, refusals = placement.filter(pod)
        if fitting:
            node = placement.best(pod.template.service, fitting)
            bound = replace(pod, node=node.name, reason=WAITING_FOR_KUBELET)
            store.put(bound)
            placement.add(bound)
            commands.append(RecordEvent("Pod", pod.name, "Scheduled", {"node": node.name}))
            commands.append(StartPod(node.name, bound))
        elif store.put(replace(pod, reason=_unschedulable(len(nodes), refusals))):
            reason = _unschedulable(len(nodes), refusals)
            commands.append(RecordEvent("Pod", pod.name, "FailedScheduling", {"message": reason}))
    return commands


class _Placement:
    """Where pods are, counted once and kept up to date while pods are bound one after the other."""

    def __init__(self, nodes: Sequence[Node], pods: Sequence[Pod]) -> None:
        self._nodes = nodes
        self._zones = {node.name: node.locality.zone for node in nodes}
        self._on_node: Counter[str] = Counter()
        self._service_on_node: Counter[tuple[str, str]] = Counter()
        self._service_in_zone: Counter[tuple[str, str]] = Counter()
        self._deployment_in_zone: Counter[tuple[str, str, str]] = Counter()
        for pod in pods:
            self.add(pod)

    def add(self, pod: Pod) -> None:
        """Terminating pods hold their place on the node but do not count for spreading (kubernetes#87621)."""
        if pod.node is None:
            return
        self._on_node[pod.node] += 1
        if pod.phase != "Terminating":
            zone = self._zones[pod.node]
            self._service_on_node[pod.template.service, pod.node] += 1
            self._service_in_zone[pod.template.service, zone] += 1
            self._deployment_in_zone[pod.namespace, pod.deployment, zone] += 1

    def filter(self, pod: Pod) -> tuple[list[Node], Counter[str]]:
        """The nodes that the pod fits on, and how many the others were refused for which reason.

        A node counts for the first filter that refuses it, in the order of kube-scheduler's default plugins.
        """
        template = pod.template
        in_zone = {zone: self._deployment_in_zone[pod.namespace, pod.deployment, zone] for zone in self._zones.values()}
        # nodeTaintsPolicy Ignore, the default: the zone of a dead node still counts as a domain to spread over.
        selected = (in_zone[node.locality.zone] for node in self._nodes if _selects(template, node))
        fewest = min(selected, default=0)
        fitting: list[Node] = []
        refusals: Counter[str] = Counter()
        for node in self._nodes:
            skew = in_zone[node.locality.zone] + 1 - fewest
            if node.unschedulable:
                refusals[UNSCHEDULABLE] += 1
            elif node.ready == "Unknown" or node.unreachable_since_s is not None:
                refusals[UNREACHABLE] += 1
            elif node.ready != "True":
                refusals[NOT_READY] += 1
            elif not _selects(template, node):
                refusals[WRONG_NODE] += 1
            elif self._on_node[node.name] >= node.capacity_pods:
                refusals[TOO_MANY_PODS] += 1
            elif template.max_skew is not None and skew > template.max_skew:
                refusals[SKEWED] += 1
            else:
                fitting.append(node)
        return fitting, refusals

    def best(self, service: str, fitting: Sequence[Node]) -> Node:
        """Fewest pods of the service in the zone, then on the node, then fewest pods on the node, then node order."""

        def score(node: Node) -> tuple[int, int, int]:
            in_zone = self._service_in_zone[service, node.locality.zone]
            return in_zone, self._service_on_node[service, node.name], self._on_node[node.name]

        return min(fitting, key=score)


def _selects(template: PodTemplate, node: Node) -> bool:
    in_zone = not template.zones or node.locality.zone in template.zones
    return in_zone and template.node in (None, node.name)


def _unschedulable(nodes: int, refusals: Counter[str]) -> str:
    """`0/6 nodes are available: 2 node(s) ..., 4 node(s) ... .` as the scheduler framework's FitError prints it."""
    reasons = sorted(f"{count} {reason}" for reason, count in refusals.items())
    return f"0/{nodes} nodes are available: {', '.join(reasons)}."
