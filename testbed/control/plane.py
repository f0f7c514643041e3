"""A whole control plane at one place: API server, controllers and istiod over one store, without I/O and without a log.

For what can be known without masters that agree: `master` is one of these.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from testbed.control.controllers import Controllers
from testbed.control.delivery.discovery import Discovery
from testbed.control.messages import (
    Apply,
    Command,
    ConfigAcked,
    ConfigRejected,
    Delete,
    Event,
    NodeEvent,
    NodeRegistered,
    ProxyConnected,
)
from testbed.control.overview import Overview, overview
from testbed.control.store import Store
from testbed.control.waiting import Waiting, not_ready
from testbed.objects.cluster import Declared
from testbed.objects.core import EndpointSlice, Node, Pod
from testbed.objects.timings import Timings
from testbed.objects.workloads import MeshMode


class ControlPlane:
    """`handle` every event when it arrives, and None when `next_deadline()` has come; carry out what it returns.

    `now` is in seconds, from any origin, and never goes back. The same calls give the same commands.
    """

    def __init__(
        self, timings: Timings, mesh_mode: MeshMode, clients: Sequence[str] = (), store: Store | None = None
    ) -> None:
        """Nothing is declared yet: `Apply` does that, then and later. `clients` are told where gateways are.

        `store` is what another control plane has left; `resume` goes on from there.
        """
        self._store = Store() if store is None else store
        self._controllers = Controllers(timings, self._store)
        self._discovery = Discovery(timings, mesh_mode, clients)

    def resume(self, now: float) -> list[Command]:
        """Go on with what the store holds, which another control plane has left.

        It believes the store until it hears better: nodes get the time that they have to renew a lease, endpoints are
        those of before, and nobody is told anything until they connect.
        """
        return self._controllers.resume(now) + self._discovery.reconcile(self._store, now)

    def apply(self, objects: Iterable[Declared], now: float) -> list[Command]:
        """Several objects, before anything follows from any of them. Raises Refused; then none is applied."""
        return self._control([Apply(each) for each in objects], now)

    def handle(self, event: Event | None, now: float) -> list[Command]:
        """What is to be done because of an event, or of `now` alone.

        Raises Refused for what cannot be applied or deleted.
        """
        match event:
            case None:
                return self._control([], now)
            case ProxyConnected() | ConfigAcked() | ConfigRejected():
                told = self._discovery.handle(self._store, event)
                return told + self._control([], now)
            case NodeRegistered() if self._store.find(Node, event.node) is not None:
                self._discovery.disconnect(self._store, event.node)
        return self._control([event], now)

    def _control(self, events: Sequence[NodeEvent | Apply | Delete], now: float) -> list[Command]:
        return self._controllers.handle(events, now) + self._discovery.reconcile(self._store, now)

    def next_deadline(self) -> float | None:
        """When to call `handle(None, now)` at the latest; None while only an event can change anything."""
        deadlines = (self._controllers.next_deadline(), self._discovery.next_deadline())
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    @property
    def store(self) -> Store:
        """For reading."""
        return self._store

    def nodes(self) -> tuple[Node, ...]:
        return self._store.list(Node)

    def pods(self) -> tuple[Pod, ...]:
        """All pods, Terminating ones too, in the order of their creation."""
        return self._store.list(Pod)

    def endpoint_slices(self) -> tuple[EndpointSlice, ...]:
        return self._store.list(EndpointSlice)

    def all_ready(self) -> bool:
        return not self.not_ready()

    def not_ready(self) -> list[Waiting]:
        """Everything that is not as declared, with the reason; empty when the cluster is up."""
        return not_ready(self._store, self._discovery.streams(self._store))

    def overview(self) -> Overview:
        """Every node and pod, as the control plane knows them."""
        return overview(self._store, self._discovery.streams(self._store))
