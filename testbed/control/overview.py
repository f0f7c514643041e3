"""What a control plane knows of its cluster at one moment: for whoever looks at it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from testbed.control.store import Store
from testbed.objects.cells import Layer
from testbed.objects.core import Node, Pod


@dataclass(frozen=True, slots=True)
class Streams:
    """Who is told configuration, and whether they have all that they should have: by name, why not, or None.

    Nobody else takes any. `due`: more is to be told as soon as things are quiet. `sessions` are those of the places,
    by name as well, where there is more than one who tells: the newest one counts.
    """

    problems: Mapping[str, str | None]
    due: bool = False
    sessions: Mapping[str, int] = field(default_factory=dict)

    @staticmethod
    def of_all(told: Sequence[Streams]) -> Streams:
        """Several that tell the same, each those who are connected to it."""
        newest: dict[str, tuple[int, str | None]] = {}
        for each in told:
            for name, problem in each.problems.items():
                session = each.sessions.get(name, 0)
                if name not in newest or session > newest[name][0]:
                    newest[name] = session, problem
        problems = {name: problem for name, (_, problem) in newest.items()}
        return Streams(problems, any(each.due for each in told))


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """`ready` is the condition of that name: True, False or Unknown."""

    name: str
    zone: str
    ready: str
    pods: int


@dataclass(frozen=True, slots=True)
class PodStatus:
    """`proxy` says whether it has all that it should have, None where the pod has none. `reason` is why it is not
    ready."""

    name: str
    node: str | None
    phase: str
    ready: bool
    restarts: int
    reason: str
    proxy: str | None


@dataclass(frozen=True, slots=True)
class Overview:
    """In the order of their creation."""

    nodes: tuple[NodeStatus, ...]
    pods: tuple[PodStatus, ...]


@dataclass(frozen=True, slots=True)
class Behind:
    """Pods whose proxies do not have all that they should have: those that are ready, and those that are not, as far as
    the control plane knows."""

    ready: tuple[str, ...]
    unready: tuple[str, ...]


def behind(store: Store, streams: Streams, layer: Layer) -> Behind:
    """Which proxies of a layer do not have all that they should have."""
    pods = [
        pod
        for pod in store.list(Pod)
        if pod.phase != "Terminating"
        and pod.template.has_proxy
        and pod.template.is_entered == (layer == "gateways")
        and (streams.due or streams.problems.get(pod.name) is not None)
    ]
    there = tuple(pod.name for pod in pods if pod.ready)
    return Behind(there, tuple(pod.name for pod in pods if not pod.ready))


def overview(store: Store, streams: Streams) -> Overview:
    """Every node and pod, as the control plane knows them."""
    pods = store.list(Pod)
    return Overview(
        tuple(
            NodeStatus(node.name, node.locality.zone, node.ready, sum(pod.node == node.name for pod in pods))
            for node in store.list(Node)
        ),
        tuple(
            PodStatus(
                pod.name,
                pod.node,
                pod.phase,
                pod.ready,
                pod.restarts,
                "" if pod.ready else pod.reason,
                (streams.problems.get(pod.name) or "in sync") if pod.template.has_proxy else None,
            )
            for pod in pods
        ),
    )
