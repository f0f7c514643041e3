"""One request's way through the cluster: every call and every failed try of it, and what its proxies knew then.

All from tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from testbed.results.measure.pushed import Pushed, Told, Version
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
class Trace:
    """Times as in the tables: seconds since the load began."""

    request: dict[str, Any]
    """Its row of `requests`."""
    steps: tuple[Step, ...]
    versions: dict[str, tuple[Version, ...]] = field(default_factory=dict)
    """By who had been told something, when the first call began that they had to do with."""
    told: tuple[Told, ...] = ()
    """About its outbound calls, when they began; what was the same for several is there once."""


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
        pushed = Pushed(self._run_dir, {end for row in hops + attempts for end in _ends(row)})
        ejections = self._ejections()
        return [
            _trace(
                rows[request_id],
                [hop for hop in hops if hop["request_id"] == request_id],
                [each for each in attempts if each["request_id"] == request_id],
                pushed,
                ejections,
            )
            for request_id in request_ids
        ]

    def _ejections(self) -> list[dict[str, Any]]:
        """And their ends, in order of time."""
        events = read_table(self._run_dir, "events")
        some = events.filter(pc.is_in(events["reason"].cast(pa.string()), value_set=pa.array(["Ejected", "Unejected"])))
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
    pushed: Pushed,
    ejections: Sequence[dict[str, Any]],
) -> Trace:
    found = [(_step(row["direction"], row), row) for row in hops] + [(_step("try", row), row) for row in attempts]
    found.sort(key=lambda each: (each[0].start_s, _ORDER[each[0].kind]))
    steps: list[Step] = []
    versions: dict[str, tuple[Version, ...]] = {}
    told: list[Told] = []
    for step, row in found:
        steps.append(_within(step, steps))
        own = "destination" if step.kind == "inbound" else "source"
        for pod, node in _ends(row, own):
            subscribers = pushed.subscribers(pod, node)
            for each in subscribers:
                versions.setdefault(each, pushed.versions(each, step.start_s))
            if step.kind == "outbound":
                told += _told(subscribers, row, pushed, ejections)
    distinct = tuple(each for number, each in enumerate(told) if each not in told[:number])
    return Trace(request, tuple(steps), {who: known for who, known in versions.items() if known}, distinct)


def _ends(row: dict[str, Any], *ends: str) -> list[tuple[str, str]]:
    """The pods of both ends of a call, or of these, with their nodes."""
    found = [(row[f"{end}_pod"], row[f"{end}_node"]) for end in ends or ("source", "destination")]
    return [end for end in found if None not in end]


def _told(
    subscribers: Sequence[str], call: dict[str, Any], pushed: Pushed, ejections: Sequence[dict[str, Any]]
) -> list[Told]:
    """By the first of them that had been told anything about this call."""
    at_s = call["start_s"]
    for subscriber in subscribers:
        if found := list(pushed.told(subscriber, call, at_s)):
            ejected = _ejected(subscriber, at_s, ejections)
            return [
                replace(each, ejected=tuple(pod for pod in each.pods if pod in ejected), at_s=at_s) for each in found
            ]
    return []


def _ejected(proxy: str, at_s: float, ejections: Sequence[dict[str, Any]]) -> set[str]:
    ejected: set[str] = set()
    for each in ejections:
        if each["source"] == proxy and each["t_s"] <= at_s:
            (ejected.add if each["reason"] == "Ejected" else ejected.discard)(each["object"])
    return ejected


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
