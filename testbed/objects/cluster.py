"""What a control plane is given when it starts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

from testbed.objects.cells import PartitionMap
from testbed.objects.core import Node, Service
from testbed.objects.mesh import DestinationRule, Gateway, Ingress, VirtualService
from testbed.objects.timings import Timings
from testbed.objects.workloads import Deployment, MeshMode

Declared = Node | Deployment | Service | DestinationRule | VirtualService | Gateway | Ingress | PartitionMap
"""Whatever a user can apply and delete."""


D = TypeVar("D", Node, Deployment, Service, DestinationRule, VirtualService, Gateway, Ingress, PartitionMap)


@dataclass(frozen=True, slots=True)
class ClusterSpec:
    """The objects that are applied to a control plane when it starts, in this order, and what it is set up with."""

    objects: tuple[Declared, ...] = ()
    timings: Timings = field(default_factory=Timings)
    mesh_mode: MeshMode = "sidecar"

    def of(self, kind: type[D]) -> tuple[D, ...]:
        return tuple(each for each in self.objects if isinstance(each, kind))

    @property
    def nodes(self) -> tuple[Node, ...]:
        return self.of(Node)

    @property
    def deployments(self) -> tuple[Deployment, ...]:
        return self.of(Deployment)

    @property
    def services(self) -> tuple[Service, ...]:
        return self.of(Service)
