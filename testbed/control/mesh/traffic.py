"""Which of all applied rules hold for which calls: the part of istiod that looks objects up (its PushContext).

Owns precedence among DestinationRules, VirtualServices and Gateways, and what a gateway without a mesh makes of an
Ingress instead. What proxies are told of it is `xds`'.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from testbed.control.mesh.locality import LocalityRule, locality_rule
from testbed.control.store import Store
from testbed.objects.cells import PartitionMap
from testbed.objects.core import Pod, Service
from testbed.objects.mesh import (
    DestinationRule,
    Gateway,
    HttpRoute,
    Ingress,
    LocalityLoadBalancing,
    Retries,
    Subset,
    TrafficPolicy,
    VirtualService,
)
from testbed.objects.metadata import Labels, host_of, selects

DEFAULT_ROUTE: Final = "default"
"""The name of a route that nobody declared (Istio, pilot/pkg/networking/core/route/route.go)."""

_NO_POLICY: Final = TrafficPolicy(load_balancer="RANDOM")
"""What is left for a gateway without a mesh: an ingress controller that picks endpoints as kube-proxy does."""
_NO_RULE: Final = LocalityRule(LocalityLoadBalancing(enabled=False), failover=False)
_NO_RETRIES: Final = Retries(attempts=0)


@dataclass(frozen=True, slots=True)
class ServiceTraffic:
    """What holds for the calls to one service, `http` for those of pods in the mesh."""

    service: Service
    policy: TrafficPolicy
    rule: LocalityRule
    http: tuple[HttpRoute, ...]
    subsets: tuple[Subset, ...] = ()


@dataclass(frozen=True, slots=True)
class GatewayTraffic:
    """What the gateways do that a Gateway selects; `selector` None means all of them. Destinations are full hosts."""

    selector: Labels | None
    routes: tuple[tuple[tuple[str, ...], HttpRoute], ...]
    """In the order in which they are tried, each with the hosts that it is for; `*` is any."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """All that proxies of one kind go by. Without a mesh (`meshed` False) endpoints are chosen as by kube-proxy."""

    services: tuple[ServiceTraffic, ...]
    gateways: tuple[GatewayTraffic, ...]
    meshed: bool = True
    cells: PartitionMap | None = None

    def routes_at(self, gateway: Pod) -> tuple[tuple[tuple[str, ...], HttpRoute], ...] | None:
        """None when nothing says that this pod takes calls."""
        labels = gateway.template.labels
        found = [each for each in self.gateways if each.selector is None or selects(each.selector, labels)]
        return tuple(route for each in found for route in each.routes) if found else None


def mesh_traffic(store: Store) -> Traffic:
    """Of several objects for one host, the first one counts: the oldest, as in Istio."""
    virtual_services = store.list(VirtualService)
    rules: dict[str, DestinationRule] = {}
    for rule in store.list(DestinationRule):
        rules.setdefault(host_of(rule.host, rule.namespace), rule)
    routes: dict[str, tuple[HttpRoute, ...]] = {}
    for each in virtual_services:
        for host in each.hosts if not each.gateways else ():
            routes.setdefault(host_of(host, each.namespace), _resolved(each))
    services = []
    for service in store.list(Service):
        found = rules.get(service.host, DestinationRule("", service.host))
        policy = found.traffic_policy
        http = routes.get(service.host, (HttpRoute(service.host, name=DEFAULT_ROUTE),))
        services.append(ServiceTraffic(service, policy, locality_rule(service, policy), http, found.subsets))
    gateways = (_gateway(gateway, virtual_services) for gateway in store.list(Gateway))
    return Traffic(tuple(services), tuple(gateways), cells=next(iter(store.list(PartitionMap)), None))


def ingress_traffic(store: Store) -> Traffic:
    """What an ingress controller goes by: Services and Ingresses, and nothing of Istio's."""
    services = tuple(ServiceTraffic(service, _NO_POLICY, _NO_RULE, ()) for service in store.list(Service))
    routes = tuple(
        (("*",), HttpRoute(host_of(path.service, ingress.namespace), path.path, retries=_NO_RETRIES, name=path.path))
        for ingress in store.list(Ingress)
        for path in ingress.paths
    )
    return Traffic(services, (GatewayTraffic(None, routes),), meshed=False)


def _gateway(gateway: Gateway, virtual_services: Sequence[VirtualService]) -> GatewayTraffic:
    routes = (
        (each.hosts, route)
        for each in virtual_services
        if (gateway.name in each.gateways and gateway.namespace == each.namespace)
        or f"{gateway.namespace}/{gateway.name}" in each.gateways
        for route in _resolved(each)
    )
    return GatewayTraffic(gateway.selector, tuple(routes))


def _resolved(virtual_service: VirtualService) -> tuple[HttpRoute, ...]:
    """Its routes with destinations as seen from anywhere."""
    return tuple(
        replace(route, destination=host_of(route.destination, virtual_service.namespace))
        for route in virtual_service.http
    )
