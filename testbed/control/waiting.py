"""What is not as declared yet, and why: for whoever waits for a cluster to come up."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from testbed.control.overview import Streams
from testbed.control.store import Store
from testbed.control.views.kube_proxy import kube_proxy_name
from testbed.objects.core import Node, Pod
from testbed.objects.places import CLIENTS
from testbed.objects.workloads import Deployment

NAMES_SHOWN = 3
_NUMBERS = re.compile(r"\d+(?:[.:]\d+)*")


@dataclass(frozen=True, slots=True)
class Waiting:
    """One object that is not ready. In `reason`, `{node}` stands for `node`."""

    kind: str
    name: str
    reason: str
    node: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}: {self.reason.replace('{node}', self.node)}"


def readiness(store: Store, streams: Streams) -> tuple[int, int, tuple[Waiting, ...]]:
    """How many pods are ready, of how many, and what is waited for."""
    wanted = sum(deployment.replicas for deployment in store.list(Deployment))
    return sum(pod.ready for pod in store.list(Pod)), wanted, tuple(not_ready(store, streams))


def not_ready(store: Store, streams: Streams) -> list[Waiting]:
    """Everything that is not as declared, with the reason; empty when the cluster is up."""
    waiting: list[Waiting] = []
    for node in store.list(Node):
        if node.lease_renewed_s is None:
            waiting.append(Waiting("node", node.name, "not registered"))
        elif node.ready != "True":
            waiting.append(Waiting("node", node.name, f"{node.ready}, its lease expired"))
        elif problem := streams.problems.get(kube_proxy_name(node.name)):
            waiting.append(Waiting("node", node.name, f"kube-proxy {problem}"))
    pods = [pod for pod in store.list(Pod) if pod.phase != "Terminating"]
    for deployment in store.list(Deployment):
        own = [p for p in pods if (p.namespace, p.deployment) == (deployment.namespace, deployment.name)]
        of_before = sum(pod.template != deployment.template for pod in own)
        if len(own) != deployment.replicas:
            created = f"{len(own)} of {deployment.replicas} pods created"
            waiting.append(Waiting("deployment", deployment.name, created))
        elif of_before:
            before = f"{of_before} pods still of its former template"
            waiting.append(Waiting("deployment", deployment.name, before))
    found = ((pod, _problem(store, streams, pod)) for pod in pods)
    waiting += [Waiting("pod", pod.name, why, pod.node or "") for pod, why in found if why]
    waiting += [
        Waiting("zone", name.removeprefix(CLIENTS), f"its clients' list of gateways {problem}")
        for name, problem in streams.problems.items()
        if problem and name.startswith(CLIENTS)
    ]
    if not waiting and streams.due:
        return [Waiting("push", "of what changed last", "due as soon as things are quiet")]
    return waiting


def _problem(store: Store, streams: Streams, pod: Pod) -> str | None:
    if pod.node is None:
        return f"unschedulable: {pod.reason}"
    if pod.phase == "Pending":
        return f"waiting for node {{node}} to start it: {pod.reason}"
    out_of_sync = streams.problems.get(pod.name) if pod.template.has_proxy else None
    if not pod.ready:
        node = store.get(Node, pod.node)
        told = "no readiness reported yet" if node.ready == "True" else f"its node is {node.ready}"
        reason = pod.reason or told
        return f"started on {{node}}, not ready: {reason}" + (f"; proxy {out_of_sync}" if out_of_sync else "")
    return f"proxy {out_of_sync}" if out_of_sync else None


def grouped(waiting: Iterable[Waiting]) -> list[str]:
    """A line for each reason, with how many it concerns and the first of them; the most frequent first.

    Reasons that differ in nodes, addresses or versions only are one; the first one's is shown.
    """
    groups: dict[tuple[str, str], list[Waiting]] = {}
    for each in waiting:
        groups.setdefault((each.kind, _NUMBERS.sub("0", each.reason)), []).append(each)
    return [_line(group) for group in sorted(groups.values(), key=len, reverse=True)]


def _line(group: list[Waiting]) -> str:
    first = group[0]
    if len(group) == 1:
        return str(first)
    names = ", ".join(each.name for each in group[:NAMES_SHOWN])
    more = f" and {len(group) - NAMES_SHOWN} more" if len(group) > NAMES_SHOWN else ""
    reason = first.reason.replace("node {node}", "its node").replace("{node}", "its node")
    return f"{len(group)} {first.kind}s ({names}{more}): {reason}"
