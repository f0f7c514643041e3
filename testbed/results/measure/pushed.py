"""What subscribers had been told at a moment: versions of each type, and the resources of these.

A proxy acts by the last version of each type of configuration that it had acknowledged.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from testbed.control.views.envoy import access_log
from testbed.control.views.kube_proxy import kube_proxy_name
from testbed.objects.workloads import NODE_PROXY
from testbed.results.tables.pods import PodIdentity, Pods
from testbed.results.tables.writer import read_table

Resource = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Version:
    """Of one type of configuration, of one proxy: what was in force (None: nothing yet), and what was on its way."""

    type: str
    in_force: str | None
    acked_s: float | None
    on_its_way: str | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """Endpoints that a proxy did not tell apart but by health, as pods. Priority 0 comes first; without a mesh there is
    only one group, and no weight where none was told."""

    priority: int
    weight: int | None
    locality: str
    pods: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Told:
    """What a proxy had been told about calls of a pod to a service. `route` (the one that matched) and `cluster` are as
    it got them; both are null where it is a kube-proxy, or where nothing like it had been told."""

    proxy: str
    service: str | None
    virtual_host: str | None
    route: Resource | None
    cluster: Resource | None
    endpoints: tuple[Group, ...]
    ejected: tuple[str, ...] = ()
    """Those of the endpoints that the proxy had ejected itself."""
    at_s: float = field(default=0.0, compare=False)
    """When the first call began of which this is true."""

    @property
    def pods(self) -> list[str]:
        return [pod for group in self.endpoints for pod in group.pods]


class Pushed:
    """All that those were told who had to do with calls of these pods, each given with its node. Raises BadRunFolder.

    A run of an earlier version did not keep what was told, only that it was: then there are versions only.
    """

    def __init__(self, run_dir: Path, pods: Collection[tuple[str, str]]) -> None:
        self._pods = Pods(PodIdentity(**row) for row in read_table(run_dir, "pods").to_pylist())
        self._at_nodes: dict[str, list[str]] = {}
        for each in self._pods.identities:
            if each.service == NODE_PROXY:
                self._at_nodes.setdefault(each.node, []).append(each.pod)
        names = pa.array({name for pod, node in pods for name in self._who_could(pod, node)}, pa.string())
        table = read_table(run_dir, "pushes")
        some = table.filter(pc.is_in(table["proxy"].cast(pa.string()), value_set=names))
        self._pushes: dict[str, dict[str, list[dict[str, Any]]]] = {}
        for push in some.sort_by("sent_s").to_pylist():
            self._pushes.setdefault(push["proxy"], {}).setdefault(push["type"], []).append(push)
        self._contents = _contents(run_dir, some)
        self._parsed: dict[int, Resource] = {}

    def subscribers(self, pod: str, node: str) -> list[str]:
        """Who was told anything about calls of this pod: its proxy, those of its node, or its node's kube-proxy."""
        return [name for name in self._who_could(pod, node) if name in self._pushes]

    def _who_could(self, pod: str, node: str) -> tuple[str, ...]:
        return pod, *self._at_nodes.get(node, ()), kube_proxy_name(node)

    def versions(self, subscriber: str, at_s: float) -> tuple[Version, ...]:
        found = []
        for kind, pushes in sorted(self._pushes.get(subscriber, {}).items()):
            sent = [push for push in pushes if push["sent_s"] <= at_s]
            if not sent:
                continue
            last = _in_force(sent, at_s)
            late = sent[-1]["version"] if last is None or sent[-1]["version"] != last["version"] else None
            in_force, acked_s = (None, None) if last is None else (last["version"], last["acked_s"])
            found.append(Version(kind, in_force, acked_s, late))
        return tuple(found)

    def told(self, subscriber: str, call: Mapping[str, Any], at_s: float) -> Iterator[Told]:
        """By what it did a call, a row of `hops`: the cluster that was called, or of several all that could have been;
        nothing where it had been told nothing of it."""
        service = call["destination_service"]
        slices = {each["service"]: each for each in self._resources(subscriber, "EndpointSlice", at_s)}
        if service in slices:
            pods = tuple(each["pod"] for each in slices[service]["endpoints"])
            yield Told(subscriber, service, None, None, None, (Group(0, None, "", pods),) if pods else ())
            return
        virtual_host, route = self._route(subscriber, call, at_s)
        clusters = {each["name"]: each for each in self._resources(subscriber, "Cluster", at_s)}
        assignments = {
            each["cluster_name"]: each for each in self._resources(subscriber, "ClusterLoadAssignment", at_s)
        }
        found = [
            Told(
                subscriber, service, virtual_host, route, clusters.get(name), self._groups(assignments.get(name), at_s)
            )
            for name in _clusters(route or {})
        ]
        host = call["destination_pod"]
        yield from [each for each in found if host in each.pods] or found

    def _route(self, subscriber: str, call: Mapping[str, Any], at_s: float) -> tuple[str | None, Resource | None]:
        """The first one that says what the line of the call says, and the name of its virtual host."""
        own = {f"{direction}{pod}" for direction in _DIRECTIONS for pod in ("", f"|{call['source_pod']}")}
        for routes in self._resources(subscriber, "RouteConfiguration", at_s):
            for host in routes["virtual_hosts"] if routes["name"] in own else ():
                for route in host["routes"]:
                    if _is_of(route, call):
                        return host["name"], route
        return None, None

    def _groups(self, assignment: Resource | None, at_s: float) -> tuple[Group, ...]:
        return tuple(
            Group(
                group["priority"],
                group["load_balancing_weight"],
                "/".join(filter(None, (group["locality"][part] for part in ("region", "zone", "sub_zone")))),
                tuple(self._pod(each, at_s) for each in group["lb_endpoints"]),
            )
            for group in (assignment or {"endpoints": ()})["endpoints"]
        )

    def _pod(self, endpoint: Resource, at_s: float) -> str:
        at = endpoint["endpoint"]["address"]["socket_address"]
        address = f"{at['address']}:{at['port_value']}"
        found = self._pods.at(address, at_s)
        return address if found is None else self._pods.identities[found].pod

    def _resources(self, subscriber: str, kind: str, at_s: float) -> list[Resource]:
        push = _in_force(self._pushes.get(subscriber, {}).get(kind, ()), at_s)
        # Of a run that found the disk full there may be numbers without contents.
        numbers = [each for each in (push or {}).get("resources") or () if each in self._contents]
        for number in numbers:
            if number not in self._parsed:
                self._parsed[number] = orjson.loads(self._contents[number])
        return [self._parsed[number] for number in numbers]


_DIRECTIONS = (access_log.OUTBOUND, access_log.GATEWAY, access_log.INBOUND)


def _in_force(pushes: Sequence[dict[str, Any]], at_s: float) -> dict[str, Any] | None:
    return next((push for push in reversed(pushes) if push["acked_s"] is not None and push["acked_s"] <= at_s), None)


def _contents(run_dir: Path, pushes: pa.Table) -> dict[int, str]:
    table = read_table(run_dir, "resources", ["number", "content"])
    wanted = pc.is_in(table["number"], value_set=pc.unique(pc.list_flatten(pushes["resources"])))
    rows = table.filter(wanted)
    return dict(zip(rows["number"].to_pylist(), rows["content"].to_pylist(), strict=True))


def _clusters(route: Resource) -> list[str]:
    action = route.get("route", {})
    several = action.get("weighted_clusters", {}).get("clusters", ())
    return [action["cluster"]] if "cluster" in action else [each["name"] for each in several]


def _is_of(route: Resource, call: Mapping[str, Any]) -> bool:
    if (route.get("name") or None) != call["route"]:
        return False
    services = {access_log.called_service(cluster) for cluster in _clusters(route)}
    known = route.get("metadata", {}).get("filter_metadata", {}).get(access_log.CELLS_METADATA, {})
    ranges = [header["range_match"] for header in route["match"].get("headers", ()) if "range_match" in header]
    partition = call["partition"] or ""
    return (
        call["destination_service"] in (services or {None})
        and known.get(access_log.OWNER_CELL) == call["owner_cell"]
        and all(partition.isdecimal() and each["start"] <= int(partition) < each["end"] for each in ranges)
    )
