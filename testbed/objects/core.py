"""Nodes, pods and services, under the names that Kubernetes gives them. What is declared, and its status."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from testbed.objects.addresses import PodAddress, SocketAddress
from testbed.objects.cells import ServiceClass
from testbed.objects.metadata import DEFAULT_NAMESPACE, Labels, host_of
from testbed.objects.places import Locality
from testbed.objects.workloads import PodTemplate

AppProtocol = Literal["http", "tcp"]
"""Kubernetes' ServicePort.appProtocol, as Istio reads it: by requests, or by connections of whatever they carry."""

CAPTURE_PORTS: Final = range(24000, 25000)
"""Of a pod's address: where its proxy takes connections to services that speak TCP, a port for each service. They
stand for the virtual addresses that a real pod would connect to, and that iptables would lead to the proxy."""


@dataclass(frozen=True, slots=True)
class Service:
    """A name that clients call, in front of the ready pods of its namespace that have the labels of its `selector`."""

    name: str
    port: int = 80
    traffic_distribution: Literal["PreferSameZone", "PreferSameNode"] | None = None
    selector: Labels = ()
    namespace: str = DEFAULT_NAMESPACE
    labels: Labels = ()
    service_class: ServiceClass = "global"
    """How it is spread over cells, where there is a PartitionMap."""
    app_protocol: AppProtocol = "http"
    capture_port: int | None = None
    """One of CAPTURE_PORTS, if it speaks TCP in a mesh."""

    @property
    def host(self) -> str:
        return host_of(self.name, self.namespace)


@dataclass(frozen=True, slots=True)
class Node:
    """`ready` is the Ready condition: True, False, or Unknown once the Lease has expired.

    Declared are its name, locality, capacity, labels and `unschedulable`; the rest is its status.
    """

    name: str
    locality: Locality
    capacity_pods: int = 110
    ready: Literal["True", "False", "Unknown"] = "False"
    lease_renewed_s: float | None = None
    unreachable_since_s: float | None = None
    """When the NoExecute taint `node.kubernetes.io/unreachable` was put on; None while it is not there."""
    relays: tuple[tuple[str, SocketAddress], ...] = ()
    """For each other node, the listener of this node's link relay that leads there."""
    unschedulable: bool = False
    """Cordoned: it keeps its pods and gets no new ones."""
    labels: Labels = ()


@dataclass(frozen=True, slots=True)
class Pod:
    """`phase` follows Kubernetes, with Terminating for a pod that is being deleted.

    Names of pods are given out for all namespaces together, so that a name alone says which one is meant.
    """

    name: str
    deployment: str
    template: PodTemplate
    node: str | None = None
    phase: Literal["Pending", "Running", "Terminating"] = "Pending"
    ready: bool = False
    """The Ready condition: the kubelet says so, the pod is Running and its node is Ready."""
    containers_ready: bool = False
    """The ContainersReady condition: what the kubelet said last, true or not by now."""
    address: PodAddress | None = None
    reason: str = ""
    """Why it is not what it should be, in one line: `0/6 nodes are available: ...`, `CrashLoopBackOff: ...`."""
    restarts: int = 0
    namespace: str = DEFAULT_NAMESPACE


@dataclass(frozen=True, slots=True)
class Endpoint:
    pod: str
    node: str
    locality: Locality
    address: SocketAddress
    """Where callers connect: the inbound listener of the mesh in front of the pod, or the application itself."""
    labels: Labels = ()
    """Of the pod, besides `app`: what subsets are chosen by."""


@dataclass(frozen=True, slots=True)
class EndpointSlice:
    """The ready endpoints of one Service, ordered by pod name."""

    service: str
    endpoints: tuple[Endpoint, ...] = ()
    namespace: str = DEFAULT_NAMESPACE

    @property
    def host(self) -> str:
        return host_of(self.service, self.namespace)


@dataclass(frozen=True, slots=True)
class Lease:
    """As long as it is renewed, its holder runs the controllers. `renewals` grows with each, whoever holds it."""

    name: str
    holder: str
    renewals: int = 0
    namespace: str = "kube-system"
