"""Who is told configuration at all: all kinds of subscribers, by the mesh mode.

istiod's discovery server, and those who watch the API server themselves, which is the same process here. Each kind has
a debounce of its own, as each is a program of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from testbed.control.delivery.subscribers import Subscribers, View
from testbed.control.messages import Command, ConfigAcked, ConfigRejected, ProxyConnected, RecordEvent
from testbed.control.store import Store
from testbed.control.views.entry import EntryTables
from testbed.control.views.envoy.proxies import Proxies
from testbed.control.views.kube_proxy import KubeProxies
from testbed.objects.timings import Timings
from testbed.objects.workloads import MeshMode

KINDS: Final[Mapping[MeshMode, tuple[type[View], ...]]] = {
    "sidecar": (Proxies,),
    "node": (Proxies,),
    "none": (Proxies, KubeProxies),
}
"""A mesh mode is who in the cluster is told: which pods have proxies is written in their templates."""


class Discovery:
    """Hands every event to the kind of subscriber that it is about."""

    def __init__(self, timings: Timings, mesh_mode: MeshMode, clients: Sequence[str] = ()) -> None:
        """`clients` are those of zones (`clients/<zone>`), which are told in every mode where gateways are."""
        views: list[View] = [view() for view in KINDS[mesh_mode]]
        views += [EntryTables(clients)] if clients else []
        self._kinds = tuple(Subscribers(view, timings) for view in views)

    def connect(self, store: Store, event: ProxyConnected) -> list[Command]:
        kind = self._kind(event.proxy)
        if kind is None or not kind.connect(store, event):
            return []
        return [RecordEvent("Proxy", event.proxy, "Connected")]

    def disconnect(self, store: Store, place: str) -> None:
        """A place was powered off."""
        for kind in self._kinds:
            kind.disconnect(store, place)

    def acked(self, event: ConfigAcked) -> None:
        kind = self._kind(event.proxy)
        if kind is not None:
            kind.acked(event)

    def rejected(self, event: ConfigRejected) -> list[Command]:
        kind = self._kind(event.proxy)
        if kind is not None:
            kind.rejected(event)
        details = {"type_url": event.type_url, "version": event.version, "error": event.error}
        return [RecordEvent("Proxy", event.proxy, "ConfigRejected", details)]

    def reconcile(self, store: Store, now: float, *, coming_up: bool = False) -> list[Command]:
        return [command for kind in self._kinds for command in kind.reconcile(store, now, coming_up=coming_up)]

    def next_deadline(self) -> float | None:
        deadlines = (kind.next_deadline() for kind in self._kinds)
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def not_in_sync(self, name: str) -> str | None:
        """Why one does not have all that it should have; None when it has, or when its kind is not there at all."""
        kind = self._kind(name)
        return None if kind is None else kind.not_in_sync(name)

    def _kind(self, name: str) -> Subscribers | None:
        """A name without a `/` is that of a pod."""
        start, slash, _ = name.partition("/")
        return next((kind for kind in self._kinds if kind.prefix == (start + slash if slash else "")), None)
