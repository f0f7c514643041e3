"""What every proxy should know, knows and refused: istiod's discovery server without its streams.

Owns when configuration is pushed (debounce), to whom, in which version, and what was acknowledged. What it says is
`xds`'; how it travels is the sidecar's. Without a mesh, the kube-proxy of every node is told of endpoints the same way:
it watches the API server, which is the same process here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from testbed.control.envoy_api import ROUTE_TYPE
from testbed.control.kube_proxy import node_of, service_endpoints
from testbed.control.messages import Command, ConfigAcked, ConfigRejected, ProxyConnected, PushConfig, RecordEvent
from testbed.control.objects import ClusterSpec, EndpointSlice, Node, Pod, PodAddress
from testbed.control.store import Store
from testbed.control.xds import ConfigGenerator, served_pods

Served = tuple[tuple[str, PodAddress | None], ...]
"""Name and address of each pod whose calls a proxy carries."""


@dataclass(slots=True)
class _Proxy:
    """One connected proxy. `resources` is what was pushed last, by type, in push order."""

    resources: dict[str, tuple[Mapping[str, Any], ...]] = field(default_factory=dict)
    built_for: tuple[int, Served] | None = None
    """The revision of the configuration and the pods that `resources` were made from."""
    pushed: dict[str, int] = field(default_factory=dict)
    acked: dict[str, str] = field(default_factory=dict)
    rejected: dict[str, str] = field(default_factory=dict)
    connected: bool = False


class Discovery:
    """Pushes state-of-the-world configuration to the proxies that are connected.

    Changes of endpoints or relays are pushed after `push_debounce_s` without another change and at most
    `push_debounce_max_s` after the first (istiod, pilot/pkg/xds/discovery.go: debounce). A proxy that just connected
    does not wait, nor does the proxy of a node where a pod came or went (istio-cni tells ztunnel on the spot). Only
    types whose resources changed are sent.
    """

    def __init__(self, cluster: ClusterSpec) -> None:
        self._cluster = cluster
        self._generator = ConfigGenerator(cluster)
        self._proxies: dict[str, _Proxy] = {}
        self._revision = 0
        self._seen: tuple[int, tuple[object, ...]] = (0, ())
        self._first_change_s: float | None = None
        self._push_due_s: float | None = None

    def connect(self, event: ProxyConnected) -> list[Command]:
        """The proxy knows nothing yet. Versions grow on, so that no late answer is mistaken for one to a new push."""
        known = self._proxies.get(event.proxy, _Proxy())
        self._proxies[event.proxy] = _Proxy(pushed=known.pushed, connected=True)
        return [RecordEvent("Proxy", event.proxy, "Connected")]

    def disconnect(self, proxy: str) -> None:
        """The proxy's node was powered off: nothing is pushed to it until it connects again."""
        if proxy in self._proxies:
            self._proxies[proxy] = _Proxy(pushed=self._proxies[proxy].pushed)

    def forget(self, proxy: str) -> None:
        """The pod of this proxy is gone for good."""
        self._proxies.pop(proxy, None)

    def acked(self, event: ConfigAcked) -> None:
        proxy = self._proxies.get(event.proxy)
        if proxy is not None and proxy.connected:
            proxy.acked[event.type_url] = event.version
            proxy.rejected.pop(event.type_url, None)

    def rejected(self, event: ConfigRejected) -> list[Command]:
        proxy = self._proxies.get(event.proxy)
        if proxy is not None and proxy.connected:
            proxy.rejected[event.type_url] = event.error
        details = {"type_url": event.type_url, "version": event.version, "error": event.error}
        return [RecordEvent("Proxy", event.proxy, "ConfigRejected", details)]

    def reconcile(self, store: Store, now: float) -> list[Command]:
        """Notices changes, then pushes what is due: to new proxies at once, to all when the debounce is over."""
        self._notice(store, now)
        everyone = self._push_due_s is not None and now >= self._push_due_s
        if everyone:
            self._first_change_s = self._push_due_s = None
        commands: list[Command] = []
        state: tuple[dict[str, Node], dict[str, EndpointSlice]] | None = None
        pods_of = self._pods_by_node(store)
        for name, proxy in self._proxies.items():
            pod = store.find(Pod, name)
            node = pod.node if pod is not None and pod.address is not None else node_of(name)
            if not proxy.connected or node is None:
                continue
            pods = served_pods(pod, pods_of.get(node, ())) if pod is not None else ()
            served = tuple((each.name, each.address) for each in pods)
            at_once = proxy.built_for is None or proxy.built_for[1] != served
            if at_once or (everyone and proxy.built_for != (self._revision, served)):
                if state is None:
                    nodes = {each.name: each for each in store.list(Node)}
                    state = nodes, {each.service: each for each in store.list(EndpointSlice)}
                proxy.built_for = (self._revision, served)
                if pod is None:
                    told = service_endpoints(self._cluster, state[0][node], state[1])
                else:
                    told = self._generator.resources(pod, pods, *state)
                commands += _push(proxy, name, node, told)
        return commands

    def next_deadline(self) -> float | None:
        return self._push_due_s

    def not_in_sync(self, pod: str) -> str | None:
        """Why the proxy of a pod does not have all that it should have, in one line; None when it has."""
        proxy = self._proxies.get(pod)
        if proxy is None or not proxy.connected:
            return "not connected"
        if proxy.built_for is None:
            return "connected, nothing pushed yet"
        for type_url, error in proxy.rejected.items():
            return f"rejected {_short(type_url)}: {error}"
        for type_url, version in proxy.pushed.items():
            acked = proxy.acked.get(type_url, "none")
            if acked != str(version):
                return f"not in sync: {_short(type_url)} version {version} pushed, {acked} acknowledged"
        return None

    def _pods_by_node(self, store: Store) -> dict[str, list[Pod]]:
        found: dict[str, list[Pod]] = {}
        for pod in store.list(Pod) if self._cluster.mesh_mode == "node" else ():
            if pod.node is not None:
                found.setdefault(pod.node, []).append(pod)
        return found

    def _notice(self, store: Store, now: float) -> None:
        """Leases and readiness alone change nothing that a proxy is told: only slices and relays do."""
        seen = (store.kind_version(EndpointSlice), tuple(node.relays for node in store.list(Node)))
        if seen == self._seen:
            return
        self._seen = seen
        self._revision += 1
        if self._first_change_s is None:
            self._first_change_s = now
        timings = self._cluster.timings
        self._push_due_s = min(now + timings.push_debounce_s, self._first_change_s + timings.push_debounce_max_s)


def _push(proxy: _Proxy, name: str, node: str, resources: dict[str, tuple[dict[str, Any], ...]]) -> list[Command]:
    commands: list[Command] = []
    for type_url, new in resources.items():
        # Envoy does not ask for routes before a listener names some, and would not acknowledge that there are none.
        nothing_to_say = type_url == ROUTE_TYPE and not new
        if proxy.resources.get(type_url) != new and not nothing_to_say:
            proxy.resources[type_url] = new
            proxy.pushed[type_url] = version = proxy.pushed.get(type_url, 0) + 1
            commands.append(PushConfig(node, name, type_url, str(version), new))
    return commands


def _short(type_url: str) -> str:
    return type_url.rpartition(".")[2]
