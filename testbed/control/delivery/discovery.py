"""Who is told configuration at all: all kinds of subscribers, by the mesh mode.

istiod's discovery server, and those who watch the API server themselves, which is the same process here. Each kind has
a debounce of its own, as each is a program of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from testbed.control.delivery.subscribers import Subscribers, View
from testbed.control.messages import Command, ConfigAcked, ConfigRejected, ProxyConnected, RecordEvent, StreamEvent
from testbed.control.overview import Streams
from testbed.control.store import Store
from testbed.control.views.entry import EntryTables
from testbed.control.views.envoy.proxies import Proxies
from testbed.control.views.kube_proxy import KubeProxies
from testbed.objects.core import Pod
from testbed.objects.timings import Timings
from testbed.objects.workloads import Deployment, MeshMode

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
        self._coming_up: bool | None = None
        """Not known before the first look at the store."""

    def handle(self, store: Store, event: StreamEvent) -> list[Command]:
        match event:
            case ProxyConnected():
                return self.connect(store, event)
            case ConfigAcked():
                self.acked(event)
                return []
            case ConfigRejected():
                return self.rejected(event)

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

    def reconcile(self, store: Store, now: float) -> list[Command]:
        coming_up = self._is_coming_up(store)
        return [command for kind in self._kinds for command in kind.reconcile(store, now, coming_up=coming_up)]

    def _is_coming_up(self, store: Store) -> bool:
        """Until all pods that are declared were ready for the first time.

        Nobody is served before. The work of telling everyone of every pod that becomes ready grows with the square of
        their number, and all proxies share a machine, as only here: they would take it from the pods that start.
        """
        if self._coming_up is None:
            self._coming_up = not store.list(Pod)
        if self._coming_up:
            wanted = sum(deployment.replicas for deployment in store.list(Deployment))
            ready = sum(pod.ready for pod in store.list(Pod))
            self._coming_up = not wanted or ready < wanted
        return self._coming_up

    def next_deadline(self) -> float | None:
        deadlines = (kind.next_deadline() for kind in self._kinds)
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def streams(self, store: Store, sessions: Mapping[str, int] = {}) -> Streams:
        """Of all that there should be, with the sessions of their places."""
        found = [(each, problem) for kind in self._kinds for each, problem in kind.problems(store)]
        return Streams(
            {each.name: problem for each, problem in found},
            due=self.next_deadline() is not None,
            sessions={each.name: sessions[each.place] for each, _ in found if each.place in sessions},
        )

    def _kind(self, name: str) -> Subscribers | None:
        """A name without a `/` is that of a pod."""
        start, slash, _ = name.partition("/")
        return next((kind for kind in self._kinds if kind.prefix == (start + slash if slash else "")), None)
