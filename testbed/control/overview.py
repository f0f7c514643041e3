"""What a control plane knows of its cluster at one moment: for whoever looks at it."""

from __future__ import annotations

from dataclasses import dataclass


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
