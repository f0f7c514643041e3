"""One request's way through the cluster: every call and every failed try of it, and what its proxies knew then.

All from tables. A proxy acts by the last version of each type of configuration that it had acknowledged, and of
endpoints it had been told what was decided when that version was sent (`EndpointsChanged`), by then.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from testbed.results.tables.columns import floats
from testbed.results.tables.writer import read_table

FLAGS = {
    "UH": "no healthy host, or none at all",
    "UF": "the connection to the host failed, or timed out",
    "UC": "the host broke the connection off",
    "UT": "time-out of the try, or of the route",
    "URX": "the last of the allowed retries failed, too",
    "UO": "a limit of the connection pool was reached",
    "NR": "no route",
    "DC": "the caller left",
}
"""Envoy's response flags that are met here, in words; a call has several, separated by commas."""

_ORDER = {"inbound": 1, "outbound": 0, "try": 2}


@dataclass(frozen=True, slots=True)
class Version:
    """Of one type of configuration, of one proxy: what was in force (None: nothing yet), and what was on its way."""

    type: str
    in_force: str | None
    acked_s: float | None
    on_its_way: str | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """A call as one proxy saw it, or one failed try of it. `depth` is how many calls it is a part of.

    `outbound` steps belong to the proxy of the source, `inbound` ones to that of the destination. Times of different
    machines are wrong by up to the clock error of the run.
    """

    kind: Literal["outbound", "inbound", "try"]
    start_s: float
    duration_ms: float | None
    source: str | None
    destination: str | None
    service: str | None
    source_zone: str | None
    destination_zone: str | None
    status: int | None
    flags: tuple[str, ...]
    attempts: int | None
    route: str | None
    depth: int = 0


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Of one service, as a proxy knew them: those that were ready, and which of these it had ejected itself."""

    service: str
    ready: tuple[str, ...]
    ejected: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Trace:
    """Times as in the tables: seconds since the load began."""

    request: dict[str, Any]
    """Its row of `requests`."""
    steps: tuple[Step, ...]
    versions: dict[str, tuple[Version, ...]] = field(default_factory=dict)
    """By proxy, when its first call began."""
    endpoints: dict[str, tuple[Endpoints, ...]] = field(default_factory=dict)
    """By pod that called, of the services that it called, when it first did."""


class Requests:
    """All requests of a run, to choose from. Raises BadRunFolder where tables cannot be read."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._table = read_table(run_dir, "requests")

    def known(self, request_ids: Sequence[str]) -> list[str]:
        """Those of them that there are, by id or by its beginning, if that is of one request only."""
        found: list[str] = []
        for wanted in request_ids:
            some = self._table["request_id"].filter(pc.starts_with(self._table["request_id"], wanted)).unique()
            found += some.to_pylist() if len(some) == 1 else []
        return found

    def chosen(self, number: int, *, slowest: bool, failed: bool) -> list[str]:
        """The slowest, or the first; of those that were not ok, if `failed`. What never finished is the slowest."""
        table = self._table.filter(pc.not_equal(self._table["outcome"], "ok")) if failed else self._table
        latency_ms, intended_s = floats(table["latency_ms"]), floats(table["intended_s"])
        by = -np.where(np.isnan(latency_ms), np.inf, latency_ms) if slowest else intended_s
        rows = np.lexsort((intended_s, by))[:number]
        ids: list[str] = table["request_id"].take(pa.array(rows)).to_pylist()
        return ids

    def traces(self, request_ids: Sequence[str]) -> list[Trace]:
        """In the order of the ids."""
        ids = pa.array(request_ids, pa.string())
        rows = {row["request_id"]: row for row in self._of(self._table, ids)}
        hops, attempts = (self._of(read_table(self._run_dir, table), ids) for table in ("hops", "attempts"))
        pushes = read_table(self._run_dir, "pushes").to_pylist()
        changes = self._changes()
        return [
            _trace(
                rows[request_id],
                [hop for hop in hops if hop["request_id"] == request_id],
                [each for each in attempts if each["request_id"] == request_id],
                pushes,
                changes,
            )
            for request_id in request_ids
        ]

    def _changes(self) -> list[dict[str, Any]]:
        """What happened to endpoints, in order of time."""
        events = read_table(self._run_dir, "events")
        reasons = pa.array(["EndpointsChanged", "Ejected", "Unejected"])
        some = events.filter(pc.is_in(events["reason"].cast(pa.string()), value_set=reasons))
        rows: list[dict[str, Any]] = some.sort_by("t_s").to_pylist()
        return rows

    @staticmethod
    def _of(table: pa.Table, ids: pa.Array) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = table.filter(pc.is_in(table["request_id"], value_set=ids)).to_pylist()
        return rows


def _trace(
    request: dict[str, Any],
    hops: Iterable[dict[str, Any]],
    attempts: Iterable[dict[str, Any]],
    pushes: Sequence[dict[str, Any]],
    changes: Sequence[dict[str, Any]],
) -> Trace:
    found = [(_step(row["direction"], row), row) for row in hops] + [(_step("try", row), row) for row in attempts]
    found.sort(key=lambda each: (each[0].start_s, _ORDER[each[0].kind]))
    steps: list[Step] = []
    began: dict[str, float] = {}
    for step, row in found:
        steps.append(_within(step, steps))
        end = "destination" if step.kind == "inbound" else "source"
        for proxy in (row[f"{end}_pod"], f"node-proxy-{row[f'{end}_node']}-1"):
            if proxy is not None:
                began.setdefault(proxy, step.start_s)
    versions = {proxy: _versions(proxy, at_s, pushes) for proxy, at_s in began.items()}
    endpoints: dict[str, dict[str, Endpoints]] = {}
    for step, row in found:
        if step.kind == "outbound" and step.source is not None and step.service is not None:
            proxies = (step.source, f"node-proxy-{row['source_node']}-1")
            told_s = max((_told_s(proxy, step.start_s, pushes) for proxy in proxies), default=-np.inf)
            if told_s > -np.inf and step.service not in endpoints.setdefault(step.source, {}):
                known = _endpoints(step.service, step.source, told_s, step.start_s, changes)
                endpoints[step.source][step.service] = known
    return Trace(
        request,
        tuple(steps),
        {proxy: known for proxy, known in versions.items() if known},
        {pod: tuple(by_service.values()) for pod, by_service in endpoints.items() if by_service},
    )


def _step(kind: Literal["outbound", "inbound", "try"], row: dict[str, Any]) -> Step:
    return Step(
        kind,
        row["start_s"],
        row["duration_ms"],
        row["source_pod"],
        row["destination_pod"],
        row["destination_service"],
        row["source_zone"],
        row["destination_zone"],
        row["status"],
        tuple(row["flags"].split(",")) if row["flags"] else (),
        row.get("attempts"),
        row.get("route"),
    )


def _within(step: Step, before: Sequence[Step]) -> Step:
    """With its depth: a call is a part of what its caller was called for, and was received from who made it."""
    for outer in reversed(before):
        made = outer.kind == "outbound" and outer.source == step.source
        if step.kind == "outbound":
            part = outer.kind == "inbound" and outer.destination == step.source
        elif step.kind == "inbound":
            part = made and outer.destination in (step.destination, None)
        else:
            part = made and outer.service == step.service
        if part:
            return replace(step, depth=outer.depth + 1)
    return step


def _told_s(proxy: str, at_s: float, pushes: Sequence[dict[str, Any]]) -> float:
    """When the endpoints that a proxy acted by were sent to it; minus infinity if it had none."""
    return max(
        (
            push["sent_s"]
            for push in pushes
            if push["proxy"] == proxy and push["type"] == "ClusterLoadAssignment"
            if push["acked_s"] is not None and push["acked_s"] <= at_s
        ),
        default=-np.inf,
    )


def _endpoints(service: str, pod: str, told_s: float, at_s: float, changes: Sequence[dict[str, Any]]) -> Endpoints:
    ready: dict[str, None] = {}
    ejected: dict[str, None] = {}
    for change in changes:
        if change["reason"] == "EndpointsChanged":
            if change["object"] == service and change["t_s"] <= told_s:
                details = orjson.loads(change["details"])
                ready.update(dict.fromkeys(details.get("added", ())))
                for gone in details.get("removed", ()):
                    ready.pop(gone, None)
        elif change["source"] == pod and change["t_s"] <= at_s:
            if change["reason"] == "Ejected":
                ejected[change["object"]] = None
            else:
                ejected.pop(change["object"], None)
    return Endpoints(service, tuple(ready), tuple(name for name in ready if name in ejected))


def _versions(proxy: str, at_s: float, pushes: Sequence[dict[str, Any]]) -> tuple[Version, ...]:
    own = [push for push in pushes if push["proxy"] == proxy and push["sent_s"] <= at_s]
    found = []
    for kind in sorted({push["type"] for push in own}):
        sent = sorted((push for push in own if push["type"] == kind), key=lambda push: push["sent_s"])
        acked = [push for push in sent if push["acked_s"] is not None and push["acked_s"] <= at_s]
        last = acked[-1] if acked else None
        late = sent[-1]["version"] if last is None or sent[-1]["version"] != last["version"] else None
        in_force, acked_s = (None, None) if last is None else (last["version"], last["acked_s"])
        found.append(Version(kind, in_force, acked_s, late))
    return tuple(found)
