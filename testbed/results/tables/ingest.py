"""Raw records -> tables: what clients, Envoy's outlier detection and stores wrote, line by line. Calls are
`ingest_calls`'.

Clients' lines are `loadgen.records`'. Memory is bounded by a block of lines and the requests in flight. A line that
cannot be read is counted and skipped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from loadgen import records
from loadgen.records import OUTCOMES
from testbed.objects.places import clients_of
from testbed.results.tables.histories import Histories
from testbed.results.tables.lines import IngestCounts, blocks, number, whole
from testbed.results.tables.pods import Pods
from testbed.results.tables.schemas import SCHEMAS, Clock
from testbed.results.tables.writer import TableWriter

NOT_FINISHED = "not finished when the run ended"

_Trip = tuple[str | None, str | None, int | None, int | None, float | None]
_OF_A_LEADER = ("term", "partitions")
_LEADERS = {"leads": "LeaderElected", "yields": "LeaderYields", "leads no more": "LeaderLost", "in sync": "IsrChanged"}
_NO_TRIP: _Trip = (None, None, None, None, None)


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
    history = Histories(operations, clock)
    sent: dict[str, tuple[Any, ...]] = {}
    total = rows_written = unreadable = orphans = 0
    names = SCHEMAS["requests"].names
    for lines, torn in blocks(path):
        total, unreadable = total + len(lines) + torn, unreadable + torn
        rows = []
        for line in lines:
            try:
                kind = line[records.KIND]
                if kind == records.OWN:
                    events.append(_own_event(line, clock, origin_zone))
                    continue
                request_id = line[records.ID]
                if kind == records.FINISHED:
                    outcome = OUTCOMES[OUTCOMES.index(line[records.OUTCOME])]
                    bodies = (line.get(records.SENT_BYTES), line.get(records.RECEIVED_BYTES))
                    answer = (whole(line[records.STATUS]), outcome, line[records.ERROR])
                    finish = (
                        line[records.FINISHED_S] + 0.0,
                        *answer,
                        *bodies,
                        line.get(records.PARTITION),
                        _trip(line),
                    )
                    if request_id in sent:
                        rows.append(_request(request_id, sent.pop(request_id), finish, clock, origin_zone))
                        history.finished(request_id, line)
                    else:
                        orphans += 1
                else:
                    send = (
                        line[records.NAME],
                        line.get(records.METHOD),
                        line.get(records.PATH),
                        line[records.INTENDED_S] + 0.0,
                        line[records.SENT_S] + 0.0,
                        line[records.ENTRY_ZONE],
                    )
                    if request_id in sent:
                        rows.append(_request(request_id, sent[request_id], None, clock, origin_zone))
                    sent[request_id] = send
                    history.sent(request_id, line)
            except (KeyError, TypeError, ValueError, AttributeError):
                unreadable += 1
        rows_written += _write_rows(requests, names, rows)
    unfinished = [_request(request_id, send, None, clock, origin_zone) for request_id, send in sent.items()]
    rows_written += _write_rows(requests, names, unfinished)
    history.end()
    return IngestCounts(total, rows_written, unreadable, orphans)


def _request(
    request_id: str,
    send: tuple[Any, ...],
    finish: tuple[float, int | None, str, str | None, int | None, int | None, str | None, _Trip | None] | None,
    clock: Clock,
    origin_zone: str,
) -> tuple[Any, ...]:
    name, method, path, intended_s, sent_s, entry_zone = send
    what = (request_id, origin_zone, name, method, path)
    times_s = (clock.from_monotonic(intended_s), clock.from_monotonic(sent_s))
    if finish is None:
        return (*what, None, *times_s, None, None, None, "unknown", NOT_FINISHED, entry_zone, None, None, *_NO_TRIP[1:])
    finished_s, status, outcome, error, sent_bytes, received_bytes, partition, trip = finish
    entry_zone, *directed = (entry_zone, *_NO_TRIP[1:]) if trip is None else trip
    latency_ms = (finished_s - intended_s) * 1e3
    answered = (clock.from_monotonic(finished_s), latency_ms, status, outcome, error)
    return (*what, partition, *times_s, *answered, entry_zone, sent_bytes, received_bytes, *directed)


def _trip(line: Mapping[str, Any]) -> _Trip | None:
    """Of a client that was directed: entry zone, cell, map version, questions and how long these took."""
    if records.QUESTIONS not in line:
        return None
    names, numbers = (
        (line[records.ENTRY_ZONE], line[records.CELL]),
        (line[records.MAP_VERSION], line[records.QUESTIONS]),
    )
    return (*names, *map(whole, numbers), number(line[records.ROUTER_MS]))


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


def _write_rows(writer: TableWriter, names: Sequence[str], rows: list[tuple[Any, ...]]) -> int:
    if rows:
        writer.write(dict(zip(names, zip(*rows, strict=True), strict=True)))
    return len(rows)
