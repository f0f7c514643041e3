"""Raw records -> tables: what clients, Envoy's outlier detection and stores wrote. Calls are `ingest_calls`'.

Clients' lines are `loadgen.records`'. Memory is bounded by a block of lines and the requests in flight. A line that
cannot be read is counted and skipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from loadgen import records
from testbed.objects.places import clients_of
from testbed.results.tables.columns import floats, nullable
from testbed.results.tables.histories import operations_of
from testbed.results.tables.lines import IngestCounts, blocks, tables
from testbed.results.tables.pods import Pods
from testbed.results.tables.schemas import Clock
from testbed.results.tables.writer import TableWriter

NOT_FINISHED = "not finished when the run ended"

_OF_A_LEADER = ("term", "partitions")
_LEADERS = {
    "leads": "LeaderElected",
    "yields": "LeaderYields",
    "leads no more": "LeaderLost",
    "in sync": "IsrChanged",
    "forbids writes": "WritesForbidden",
    "allows writes": "WritesAllowed",
}

_LINE = pa.schema(
    [
        *((name, pa.string()) for name in (records.KIND, records.ID, records.METHOD, records.PATH, records.NAME)),
        *((name, pa.string()) for name in (records.ENTRY_ZONE, records.OUTCOME, records.ERROR, records.PARTITION)),
        *((name, pa.string()) for name in (records.CELL, records.PROCESS, records.KEY, records.VALUE, records.OWNER)),
        *((name, pa.float64()) for name in (records.INTENDED_S, records.SENT_S, records.FINISHED_S)),
        *((name, pa.float64()) for name in (records.ROUTER_MS, records.RESPONSE_TIME_MS)),
        *((name, pa.int16()) for name in (records.STATUS, records.QUESTIONS)),
        *((name, pa.int64()) for name in (records.SENT_BYTES, records.RECEIVED_BYTES, records.MAP_VERSION)),
    ]
)
"""Of every kind: what two of them call by the same letter is of the same type."""
_OUTCOMES = pa.array(records.OUTCOMES)


def ingest_requests(
    path: Path,
    requests: TableWriter,
    events: TableWriter,
    clock: Clock,
    origin_zone: str,
    operations: TableWriter | None = None,
) -> IngestCounts:
    """Client records -> `requests`: exactly one row for every sent line, unfinished ones last with outcome unknown.

    What the locustfile fired itself is no request: it becomes `events` of kind LocustEvent, reason Fired or Failed. The
    counted `rows` are those of requests. Where they are of a store's keys, each is also a row of `operations`.
    """
    total = rows_written = unreadable = orphans = 0
    under_way = _LINE.empty_table()
    for lines, torn in tables(path, _LINE):
        own = lines.filter(_are(records.OWN, lines, records.FIRED_S))
        for line in own.to_pylist():
            events.append(_own_event(line, clock, origin_zone))
        sent = _are(records.SENT, lines, records.ID, records.INTENDED_S, records.SENT_S)
        finished = _are(records.FINISHED, lines, records.ID, records.FINISHED_S, records.OUTCOME)
        about = lines.filter(pc.or_(sent, finished))
        total, unreadable = total + len(lines) + torn, unreadable + len(lines) + torn - len(own) - len(about)
        ended, ends, under_way, unsent = _paired(pa.concat_tables([under_way, about]).combine_chunks())
        _write(ended, ends, clock, origin_zone, requests, operations)
        rows_written, orphans = rows_written + len(ended), orphans + unsent
    nothing = under_way.take(pa.nulls(len(under_way), pa.int32()))
    _write(under_way, nothing, clock, origin_zone, requests, operations)
    return IngestCounts(total, rows_written + len(under_way), unreadable, orphans)


def _are(kind: str, lines: pa.Table, *needed: str) -> pa.ChunkedArray:
    """Which lines are of this kind, and have what it needs."""
    found = pc.fill_null(pc.equal(lines[records.KIND], kind), False)
    for name in needed:
        there = pc.is_in(lines[name], value_set=_OUTCOMES) if name == records.OUTCOME else pc.is_valid(lines[name])
        found = pc.and_(found, there)
    return found


def _paired(lines: pa.Table) -> tuple[pa.Table, pa.Table, pa.Table, int]:
    """Of requests that came to an end: how they were sent and, row by row, how they finished, in the order of the ends;
    then those that are under way, and the number of finishes of what was never sent.

    A request ends with the next line about it. Where that is one more send of it, its finish is null.
    """
    is_sent = pc.equal(lines[records.KIND], records.SENT).to_numpy()
    ids = lines[records.ID].combine_chunks().dictionary_encode().indices.to_numpy()
    order = np.argsort(ids, kind="stable")
    then = np.full(len(lines), -1)
    then[order[:-1]] = np.where(ids[order[:-1]] == ids[order[1:]], order[1:], -1)
    ended = np.flatnonzero(is_sent & (then >= 0))
    ended = ended[np.argsort(then[ended])]
    ends = then[ended]
    finished = lines.take(pa.array(ends, mask=is_sent[ends]))
    unsent = int(np.sum(~is_sent)) - int(np.sum(~is_sent[ends]))
    return lines.take(ended), finished, lines.filter(is_sent & (then < 0)), unsent


def _write(
    sent: pa.Table,
    finished: pa.Table,
    clock: Clock,
    origin_zone: str,
    requests: TableWriter,
    operations: TableWriter | None,
) -> None:
    intended_s, finished_s = floats(sent[records.INTENDED_S]), floats(finished[records.FINISHED_S])
    # Who is directed knows only at the end where to.
    directed = pc.is_valid(finished[records.QUESTIONS])
    columns = {
        "request_id": sent[records.ID],
        "origin_zone": np.full(len(sent), origin_zone),
        "name": sent[records.NAME],
        "method": sent[records.METHOD],
        "path": sent[records.PATH],
        "partition": finished[records.PARTITION],
        "intended_s": clock.from_monotonic(intended_s),
        "sent_s": clock.from_monotonic(floats(sent[records.SENT_S])),
        "finished_s": nullable(clock.from_monotonic(finished_s)),
        "latency_ms": nullable((finished_s - intended_s) * 1e3),
        "status": finished[records.STATUS],
        "outcome": pc.fill_null(finished[records.OUTCOME], "unknown"),
        "error": pc.if_else(pc.is_valid(finished[records.OUTCOME]), finished[records.ERROR], NOT_FINISHED),
        "entry_zone": pc.if_else(directed, finished[records.ENTRY_ZONE], sent[records.ENTRY_ZONE]),
        "sent_bytes": finished[records.SENT_BYTES],
        "received_bytes": finished[records.RECEIVED_BYTES],
        "cell": finished[records.CELL],
        "map_version": finished[records.MAP_VERSION],
        "questions": finished[records.QUESTIONS],
        "router_ms": finished[records.ROUTER_MS],
    }
    requests.write(pa.table(columns))
    if operations is not None:
        operations.write(operations_of(sent, finished, clock))


def _own_event(line: Mapping[str, Any], clock: Clock, origin_zone: str) -> dict[str, Any]:
    error = line[records.ERROR]
    details = {"request_type": line[records.TYPE], "response_time_ms": line[records.RESPONSE_TIME_MS], "error": error}
    return {
        "t_s": clock.from_monotonic(line[records.FIRED_S] + 0.0),
        "source": clients_of(origin_zone),
        "kind": "LocustEvent",
        "object": str(line[records.NAME]),
        "reason": "Fired" if error is None else "Failed",
        "details": orjson.dumps(details).decode(),
    }


def ingest_outlier_log(path: Path, pod: str, pods: Pods, clock: Clock, events: TableWriter) -> IngestCounts:
    """Envoy's outlier detection log of one pod's proxy -> `events` of kind Endpoint, reason Ejected or Unejected.

    An ejection that Envoy only noted (`enforced` false) has the reason EjectionNotEnforced.
    """
    total = rows = unreadable = 0
    for lines, torn in blocks(path):
        total, unreadable = total + len(lines) + torn, unreadable + torn
        for line in lines:
            try:
                t_s = clock.from_epoch(datetime.fromisoformat(line["timestamp"]).timestamp())
                reason = {"EJECT": "Ejected", "UNEJECT": "Unejected"}[line["action"]]
                if reason == "Ejected" and not line.get("enforced", True):
                    reason = "EjectionNotEnforced"
                host = pods.at(line["upstream_url"], t_s)
                name = line["upstream_url"] if host is None else pods.identities[host].pod
                known = ("type", "cluster_name", "upstream_url", "num_ejections")
                details = {key: line[key] for key in known if key in line}
            except (KeyError, TypeError, ValueError, AttributeError):
                unreadable += 1
                continue
            event = {"t_s": t_s, "source": pod, "kind": "Endpoint", "object": name, "reason": reason}
            events.append({**event, "details": orjson.dumps(details).decode()})
            rows += 1
    return IngestCounts(total, rows, unreadable)


def ingest_leaders(path: Path, pod: str, service: str, clock: Clock, events: TableWriter) -> IngestCounts:
    """What a replica of a store noted -> `events` of kind Leader, with the reasons of `_LEADERS`."""
    total = rows = unreadable = 0
    for lines, torn in blocks(path):
        total, unreadable = total + len(lines) + torn, unreadable + torn
        for line in lines:
            try:
                t_s, details = clock.from_monotonic(line["t_s"] + 0.0), {key: line[key] for key in _OF_A_LEADER}
                group, reason = f"{service}/{line['group']}", _LEADERS[line["what"]]
                if "isr" in line:
                    details["isr"] = line["isr"]
            except (KeyError, TypeError):
                unreadable += 1
                continue
            event = {"t_s": t_s, "source": pod, "kind": "Leader", "object": group, "reason": reason}
            events.append({**event, "details": orjson.dumps(details).decode()})
            rows += 1
    return IngestCounts(total, rows, unreadable)
