"""How far the calls of a load go and what their bodies cost, before anything runs: all is up, and nothing goes wrong.

Follows each kind of request, by the zone that it comes from and the cell that owns its key, from the gateway to all
pods that it calls, with the shares in which proxies spread calls. Nobody knows that of clients who are directed, of
shuffle shards, and of what a program of the user's own calls or answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from testbed.control.cells.subsets import groups_of
from testbed.control.mesh.locality import prioritised
from testbed.control.mesh.traffic import ServiceTraffic, mesh_traffic
from testbed.control.store import Store
from testbed.objects.cells import CELL, CITY
from testbed.objects.core import Endpoint, EndpointSlice, Node, Pod
from testbed.objects.metadata import Labels
from testbed.objects.places import DISTANCES, Distance
from testbed.objects.workloads import GATEWAY, BuiltinWorkload, StoreWorkload
from testbed.scenario.cell_plan import cell_plan, entered_by
from testbed.scenario.values import ExpectedShares, Prices, RequestSpec, Scenario

MONTH_S = 30 * 86400
_OUT_OF_ZONE: tuple[Distance, ...] = ("same_city", "same_region", "cross_region")


class Unknown(Exception):
    """Why nobody can tell."""


@dataclass(slots=True)
class Carried:
    """A request's calls by distance, gateways' too, with the bodies that they carry there and back."""

    calls: dict[Distance, float] = field(default_factory=lambda: dict.fromkeys(DISTANCES, 0.0))
    bytes: dict[Distance, float] = field(default_factory=lambda: dict.fromkeys(DISTANCES, 0.0))

    @property
    def out_of_zone(self) -> float:
        """Of 1."""
        total = sum(self.calls.values())
        return sum(self.calls[each] for each in _OUT_OF_ZONE) / total if total else 0.0

    def cost(self, prices: Prices) -> float:
        """Of a request's bodies, in the currency of the prices."""
        return sum(size * prices.at(distance).per_byte for distance, size in self.bytes.items())


def carried(store: Store, scenario: Scenario) -> Carried:
    """Raises Unknown."""
    return _Walk(store, scenario).all()


def with_calls(expected: ExpectedShares | None, store: Store, scenario: Scenario) -> ExpectedShares | None:
    """What a run is compared with, as far as it is known."""
    if expected is None:
        return None
    try:
        found = carried(store, scenario)
    except Unknown:
        return expected
    session = 1 if scenario.load.ids is None else scenario.load.ids.session
    return replace(
        expected, out_of_zone=found.out_of_zone, bodies_cost_per_request=found.cost(scenario.prices), session=session
    )


def call_lines(store: Store, scenario: Scenario) -> Iterator[str]:
    """For people."""
    try:
        found = carried(store, scenario)
    except Unknown as why:
        yield f"  nobody can tell how far calls go: {why}"
        return
    calls = sum(found.calls.values())
    yield f"  a request makes {calls:.2f} calls, gateways' too, of which {found.out_of_zone:.2%} leave their zone"
    sources = scenario.load.sources
    rate_per_s = sum(source.rate_per_s or 0.0 for source in sources)
    what = f"30 days at {rate_per_s:g} requests/s"
    times = rate_per_s * MONTH_S
    if any(source.rate_per_s is None for source in sources):
        # Who waits for answers has no rate.
        what, times = "a million requests", 1e6
    if not any(found.bytes.values()):
        yield f"  {what}: {round(calls * times, 3):,.0f} calls; no bodies are declared, so only headers cost anything"
        return
    gb = sum(found.bytes[each] for each in _OUT_OF_ZONE) * times / 1e9
    cost = f"{found.cost(scenario.prices) * times:,.2f} {scenario.prices.currency}"
    yield f"  {what}: {round(calls * times, 3):,.0f} calls, {gb:,.1f} GB of bodies out of zone, {cost} for bodies"
    yield "  headers come on top: they are the proxies', about 0.5 kB a call"


class _Walk:
    def __init__(self, store: Store, scenario: Scenario) -> None:
        plan = cell_plan(store, scenario.load)
        if plan is None:
            raise Unknown("there are no cells")
        self._map, self._owned, self._load = plan.cell_map, plan.requests, scenario.load
        if scenario.load.directed is not None:
            raise Unknown("clients are directed")
        if self._map.shards:
            raise Unknown("with shuffle shards chance has dealt out the workers")
        self._store, self._traffic = store, mesh_traffic(store)
        self._called = {each.service.host: each for each in self._traffic.services}
        self._endpoints = {each.host: each.endpoints for each in store.list(EndpointSlice)}
        self._nodes = {node.name: node for node in store.list(Node)}
        self._workloads = {pod.template.service: pod.template.workload for pod in store.list(Pod)}
        self._cities = {zone: city.name for city in self._map.cities for zone in city.zones}
        self._declared_cities = scenario.cities
        self._found = Carried()

    def all(self) -> Carried:
        weights = {each.zone: each.rate_per_s or float(each.users or 0) for each in self._load.sources}
        requests = self._load.requests or (RequestSpec("GET /"),)
        for zone, weight in weights.items():
            gateway = self._gateway(zone)
            for request in requests:
                share = weight / sum(weights.values()) * request.weight / sum(each.weight for each in requests)
                service = entered_by(self._traffic, request.path)
                if service is None:
                    continue
                for cell, owned in self._owned.items():
                    self._enter(gateway, service, cell, share * owned, len((request.body or "").encode()))
        return self._found

    def _gateway(self, zone: str) -> Node:
        nodes = [pod.node for pod in self._store.list(Pod) if pod.template.service == GATEWAY and pod.node]
        found = next((node for node in nodes if self._nodes[node].locality.zone == zone), None)
        if found is None:
            raise Unknown(f"{zone} has no gateway of its own")
        return self._nodes[found]

    def _enter(self, gateway: Node, service: str, cell: str, share: float, sent_bytes: int) -> None:
        if not share:
            return
        first = 0.0
        if self._called[service].service.service_class == "sharded" and self._map.first_hit == "nearest":
            first = 1 / (1 if self._load.ids is None else self._load.ids.session)
            for endpoint, part in self._spread(gateway, service, ()):
                self._carry(gateway, endpoint, service, share * first * part, sent_bytes)
                node = self._nodes[endpoint.node]
                if dict(endpoint.labels).get(CELL) == cell:
                    self._serve(node, service, cell, share * first * part)
                elif self._map.misdirected == "forward":
                    self._call(node, service, cell, share * first * part, sent_bytes)
        self._call(gateway, service, cell, share * (1 - first), sent_bytes)

    def _call(self, caller: Node, service: str, cell: str, share: float, sent_bytes: int = 0) -> None:
        for labels, weight in self._subsets(self._called[service], caller, cell):
            for endpoint, part in self._spread(caller, service, labels):
                self._carry(caller, endpoint, service, share * weight * part, sent_bytes)
                self._serve(self._nodes[endpoint.node], service, cell, share * weight * part)

    def _serve(self, node: Node, service: str, cell: str, share: float) -> None:
        workload = self._workloads[service]
        if not isinstance(workload, BuiltinWorkload):
            return
        for stage in workload.stages if share else ():
            for callee in stage:
                self._call(node, callee, cell, share)

    def _subsets(self, called: ServiceTraffic, caller: Node, cell: str) -> Iterator[tuple[Labels, float]]:
        match called.service.service_class:
            case "sharded":
                yield from ((labels, weight / 100) for _, labels, weight in groups_of(self._map.cell(cell)))
            case "perCity":
                yield ((CITY, self._cities.get(caller.locality.zone, "")),), 1.0
            case _:
                yield (), 1.0

    def _spread(self, caller: Node, service: str, labels: Labels) -> Iterator[tuple[Endpoint, float]]:
        wanted = [each for each in self._endpoints.get(service, ()) if set(labels) <= set(each.labels)]
        groups = [each for each in prioritised(wanted, caller, self._called[service].rule) if each.priority == 0]
        total = sum(group.weight for group in groups)
        for group in groups:
            for endpoint in group.endpoints:
                yield endpoint, group.weight / total / len(group.endpoints)

    def _carry(self, caller: Node, to: Endpoint, service: str, share: float, sent_bytes: int) -> None:
        distance, workload = self._distance(caller, to), self._workloads[service]
        if not isinstance(workload, BuiltinWorkload | StoreWorkload):
            raise Unknown(f"{service} runs a program, which calls whom it likes")
        # A store calls nobody, and its values are a few bytes long.
        answered_bytes = workload.response_bytes if isinstance(workload, BuiltinWorkload) else 0
        self._found.calls[distance] += share
        self._found.bytes[distance] += share * (sent_bytes + answered_bytes)

    def _distance(self, caller: Node, to: Endpoint) -> Distance:
        here, there, cities = caller.locality, to.locality, self._declared_cities
        if caller.name == to.node:
            return "same_node"
        if here.zone == there.zone:
            return "same_zone"
        if here.region != there.region:
            return "cross_region"
        one_city = bool(cities) and cities.get(here.zone, "") == cities.get(there.zone, "")
        return "same_city" if one_city else "same_region"
