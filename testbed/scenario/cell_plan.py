"""What a partition map lets expect of a load, before anything runs: who gets what, and which calls leave their cell.

Owns the arithmetic for sessions and call graphs when nothing goes wrong. What is measured is `results`'.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from testbed.control.cells.ownership import partitions_of, written
from testbed.control.cells.partitions import partition_of
from testbed.control.cells.shards import overlaps
from testbed.control.mesh.locality import prioritised
from testbed.control.mesh.traffic import Traffic, mesh_traffic
from testbed.control.store import Store
from testbed.objects.cells import CELL, PartitionMap, ShuffleShards
from testbed.objects.core import EndpointSlice, Node, Pod
from testbed.objects.workloads import BuiltinWorkload
from testbed.scenario.values import ExpectedShares, IdSpec, LoadSpec, RequestSpec

ENOUGH_IDS = 100_000
"""Of ids that are drawn alike, so many tell how they fall on partitions."""


@dataclass(frozen=True, slots=True)
class CellPlan:
    """Shares are of 1. Of calls only those between pods count: what gateways send is no call out of a cell."""

    cell_map: PartitionMap
    requests: Mapping[str, float]
    """The share of all keyed requests that each cell owns."""
    forwards: float
    """Of all requests: at first hits, by cells that are not the owner."""
    calls: Mapping[str, float]
    """A request's calls to each service, without forwards."""
    own: float
    """Calls a request that stay in their cell."""
    by_class: float
    """Calls a request to services that are `global` or `perCity`."""

    @property
    def local_share(self) -> float:
        """Of calls between pods: those that stay in the cell that owns the partition."""
        total = self.own + self.by_class + self.forwards
        return self.own / total if total else 1.0

    @property
    def cross_cell_share(self) -> float:
        """Those that leave a cell for another."""
        total = self.own + self.by_class + self.forwards
        return self.forwards / total if total else 0.0


def cell_plan(store: Store, load: LoadSpec) -> CellPlan | None:
    """None where there are no cells. `store` is that of a cluster in which everything is up."""
    cell_map = next(iter(store.list(PartitionMap)), None)
    if cell_map is None:
        return None
    traffic = mesh_traffic(store)
    sharded = {each.service.host for each in traffic.services if each.service.service_class == "sharded"}
    owned = _owned(cell_map, load.ids)
    entered = _entered(traffic, load)
    calls = _calls(store, entered)
    forwards = 0.0
    if cell_map.first_hit == "nearest":
        session = 1 if load.ids is None else load.ids.session
        for service in entered.keys() & sharded:
            hit = _first_hit(store, traffic, load, service)
            elsewhere = sum(share * (1 - owned[cell]) for cell, share in hit.items())
            forwards += entered[service] / session * elsewhere
    between_pods = {service: count - entered.get(service, 0.0) for service, count in calls.items()}
    own = sum(count for service, count in between_pods.items() if service in sharded)
    by_class = sum(count for service, count in between_pods.items() if service not in sharded)
    return CellPlan(cell_map, owned, forwards, calls, own, by_class)


def expected_shares(store: Store, load: LoadSpec) -> ExpectedShares | None:
    """What is to be compared with what a run measures. A locustfile's own ids are not known."""
    plan = None if load.ids is None else cell_plan(store, load)
    return None if plan is None else ExpectedShares(plan.local_share, plan.forwards)


def lines_of(plan: CellPlan, load: LoadSpec) -> Iterator[str]:
    """For people."""
    cell_map = plan.cell_map
    rows = [("cell", "zones", "partitions", "", "requests", "backup", "groups")]
    for cell in cell_map.cells:
        owned = partitions_of(cell_map, cell.name)
        share = f"{plan.requests[cell.name]:.1%}"
        groups = ", ".join(f"{group.name} {group.weight} %" for group in cell.groups)
        owns = written(owned) or ("none, elastic" if cell.elastic else "none")
        rows.append((cell.name, ", ".join(cell.zones), owns, str(len(owned)), share, cell.backup or "-", groups or "-"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    yield f"{len(cell_map.owners)} partitions, map version {cell_map.version}:"
    for row in rows:
        yield "  " + "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
    yield from map(_line_of_shards, cell_map.shards)
    session = "" if load.ids is None else f", sessions of {load.ids.session}"
    calls = ", ".join(f"{count:g} {service}" for service, count in plan.calls.items())
    yield f"expected when nothing goes wrong{session}:"
    yield f"  a request is {calls}"
    what = "forwarded" if cell_map.misdirected == "forward" else "refused"
    yield f"  {plan.forwards:.2%} of all requests are {what}, at first hits"
    yield f"  of the calls between pods {plan.local_share:.2%} stay in the cell that owns the partition,"
    by_class = 1 - plan.local_share - plan.cross_cell_share
    yield f"  {by_class:.2%} go to global and perCity services, and {plan.cross_cell_share:.2%} from cell to cell"


def _line_of_shards(shards: ShuffleShards) -> str:
    *some, whole = overlaps(shards.size, shards.workers)
    shared = [f"{share:.2%} share {'none' if count == 0 else count}" for count, share in enumerate(some) if share]
    told = ", ".join([*shared, f"{whole:.2%} all"])
    shape = f"{shards.size} of {shards.workers} workers in each cell"
    return f"shuffle shards of {shards.service}: {shape}; with the workers of one partition, others' {told}"


def _owned(cell_map: PartitionMap, ids: IdSpec | None) -> dict[str, float]:
    """The share of requests that each cell owns; without ids all partitions count alike."""
    weights: dict[str, float] = {cell.name: 0.0 for cell in cell_map.cells}
    if ids is None:
        for owner in cell_map.owners:
            weights[owner] += 1.0
    else:
        for key, weight in _drawn(ids):
            partition = partition_of(cell_map.rule, len(cell_map.owners), key)
            if partition is not None:
                weights[cell_map.owners[partition]] += weight
    total = sum(weights.values()) or 1.0
    return {cell: weight / total for cell, weight in weights.items()}


def _drawn(ids: IdSpec) -> Iterator[tuple[str, float]]:
    if ids.file is not None:
        yield from ((key, 1.0) for key in ids.file.read_text().split())
    elif ids.distribution == "zipf":
        yield from ((str(number), (number + 1) ** -ids.exponent) for number in range(ids.count))
    else:
        # Evenly out of all of them, in steps with which every digit takes all values.
        step = max(1, ids.count // ENOUGH_IDS)
        while step % 2 == 0 or step % 5 == 0:
            step += 1
        yield from ((str(number), 1.0) for number in range(0, ids.count, step))


def entered_by(traffic: Traffic, path: str) -> str | None:
    """The service that gateways send requests for a path to; None where no route is for it."""
    routes = (route for gateway in traffic.gateways for _, route in gateway.routes)
    return next((route.destination for route in routes if path.startswith(route.prefix)), None)


def _entered(traffic: Traffic, load: LoadSpec) -> dict[str, float]:
    """The share of requests by the service that gateways send them to."""
    shares: dict[str, float] = {}
    requests = load.requests or (RequestSpec("GET /"),)
    for request in requests:
        service = entered_by(traffic, request.path)
        if service is not None:
            share = request.weight / sum(each.weight for each in requests)
            shares[service] = shares.get(service, 0.0) + share
    return shares


def _calls(store: Store, entered: Mapping[str, float]) -> dict[str, float]:
    """How often a request calls each service, gateways included."""
    stages: dict[str, Iterable[str]] = {}
    for pod in store.list(Pod):
        if isinstance(workload := pod.template.workload, BuiltinWorkload):
            stages[pod.template.service] = [callee for stage in workload.stages for callee in stage]
    calls: dict[str, float] = {}
    waiting = list(entered.items())
    while waiting:
        service, count = waiting.pop(0)
        calls[service] = calls.get(service, 0.0) + count
        waiting += [(callee, count) for callee in stages.get(service, ())]
    return calls


def _first_hit(store: Store, traffic: Traffic, load: LoadSpec, service: str) -> dict[str, float]:
    """Which cells get requests without a cookie: those of the endpoints that gateways prefer, by the load of zones."""
    called = next(each for each in traffic.services if each.service.host == service)
    endpoints = next(each.endpoints for each in store.list(EndpointSlice) if each.host == service)
    shares: dict[str, float] = {}
    weights = {source.zone: source.rate_per_s or float(source.users or 0) for source in load.sources}
    for zone, weight in weights.items():
        gateway = next(node for node in store.list(Node) if node.locality.zone == zone)
        groups = [each for each in prioritised(endpoints, gateway, called.rule) if each.priority == 0]
        total = sum(group.weight for group in groups)
        for group in groups:
            for endpoint in group.endpoints:
                cell = dict(endpoint.labels).get(CELL, "")
                share = group.weight / total / len(group.endpoints)
                shares[cell] = shares.get(cell, 0.0) + share * weight / sum(weights.values())
    return shares
