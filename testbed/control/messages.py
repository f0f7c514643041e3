"""What goes in and out of the control plane and the kubelet: events (past tense) and commands (imperative)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from testbed.objects.addresses import PodAddress, SocketAddress
from testbed.objects.cluster import Declared
from testbed.objects.core import Pod
from testbed.objects.metadata import DEFAULT_NAMESPACE

# --- events: what a user asks of the control plane ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Apply:
    """Create the object, or make the one of its kind, namespace and name what it says. See `api_server`."""

    object: Declared


@dataclass(frozen=True, slots=True)
class Delete:
    kind: type[Declared] | type[Pod]
    name: str
    namespace: str = DEFAULT_NAMESPACE


# --- events: what a node or a proxy reports to the control plane -----------------------------------------------


@dataclass(frozen=True, slots=True)
class PodListed:
    """A pod that a node has started, as its kubelet last reported it, or would have if somebody had listened."""

    name: str
    address: PodAddress
    restarts: int
    ready: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class NodeRegistered:
    """A kubelet came up, at first or after a reboot, or has found a control plane that may not have heard it before.

    `pods` are all that it has started; of the others none runs until PodStarted says so.
    """

    node: str
    relays: tuple[tuple[str, SocketAddress], ...] = ()
    pods: tuple[PodListed, ...] = ()
    booted: bool = True
    """Whether the node has booted just now, and not only listed again what is there."""


@dataclass(frozen=True, slots=True)
class LeaseRenewed:
    node: str


@dataclass(frozen=True, slots=True)
class PodStarted:
    """All processes of the pod run; it may not be ready yet.

    `restarts` is how often its processes were started again, all at once or one: of several, the one that was most
    often. A kill of the whole pod is one restart.
    """

    node: str
    pod: str
    address: PodAddress
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class PodReadinessChanged:
    node: str
    pod: str
    ready: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class PodStopped:
    """The pod and everything it held are gone from the node, after StopPod."""

    node: str
    pod: str


@dataclass(frozen=True, slots=True)
class ProxyConnected:
    """A subscriber opened its configuration stream. A proxy has the name of its pod."""

    proxy: str
    versions: tuple[tuple[str, int], ...] = ()
    """By type, the last version that it was sent on an earlier stream, as xDS has it in a first request; it is told
    everything again, in newer ones."""


@dataclass(frozen=True, slots=True)
class ConfigAcked:
    proxy: str
    type_url: str
    version: str


@dataclass(frozen=True, slots=True)
class ConfigRejected:
    """A NACK: the proxy keeps its previous version."""

    proxy: str
    type_url: str
    version: str
    error: str


@dataclass(frozen=True, slots=True)
class Hello:
    """A place has chosen a master, and begins the session with it that its other events name."""


@dataclass(frozen=True, slots=True)
class Ping:
    """Who has nothing else to say wants to know whether its master is there. A kubelet has leases for that."""


NodeEvent = NodeRegistered | LeaseRenewed | PodStarted | PodReadinessChanged | PodStopped
"""What becomes state that all masters have."""
StreamEvent = ProxyConnected | ConfigAcked | ConfigRejected
"""What is between a subscriber and who serves it."""
SessionEvent = Hello | Ping
Event = Apply | Delete | NodeEvent | StreamEvent

# --- commands: what the control plane wants done ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StartPod:
    node: str
    pod: Pod


@dataclass(frozen=True, slots=True)
class StopPod:
    node: str
    pod: str


@dataclass(frozen=True, slots=True)
class PushConfig:
    """All resources of one type for one proxy or other subscriber (state of the world), for the place where it is.

    Every resource is the JSON form of a protobuf message, with `@type`; `version` grows by one a push and type.
    """

    place: str
    proxy: str
    type_url: str
    version: str
    resources: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class RecordEvent:
    """A line for the `events` table: Kubernetes' kind, object name and CamelCase reason.

    `details` name durations, not moments: the origin of `now` means nothing to who reads the table.
    """

    kind: str
    object: str
    reason: str
    details: Mapping[str, Any] = field(default_factory=dict)


Command = StartPod | StopPod | PushConfig | RecordEvent
