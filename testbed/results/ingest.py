"""Raw records -> tables: what Locust, Envoy's access logs and Envoy's outlier detection wrote, line by line.

Owns the client record format and the meaning of a proxy's lines; their fields are `control.access_log`'s. Memory is
bounded by a block of lines and, for clients, by the requests in flight. A line that cannot be read (a killed process
leaves its last one torn) is counted and skipped.

A client writes two JSON lines a request:
`{"e": "s", "id": .., "n": name, "p": partition, "i": intended, "s": sent, "z": entry zone}` when it is sent and
`{"e": "f", "id": .., "f": finished, "c": status or null, "o": outcome, "m": error or null}` when it is finished;
times are monotonic seconds.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from testbed.control import access_log
from testbed.results.tables import PLACE_FIELDS, SCHEMAS, Clock
from testbed.results.writer import TableWriter

_BLOCK_BYTES = 8 << 20
_OUTCOMES = ("ok", "failed", "unknown")
_CALLS = {access_log.OUTBOUND: "outbound", access_log.GATEWAY: "outbound", access_log.INBOUND: "inbound"}
NOT_FINISHED = "not finished when the run ended"


@dataclass(frozen=True, slots=True)
class IngestCounts:
    """`orphans` are finishes of requests that were never sent: lines lost before them."""

    lines: int = 0
    rows: int = 0
    unreadable: int = 0
    orphans: int = 0


@dataclass(frozen=True, slots=True)
class PodIdentity:
    """One life of a pod; a row of the `pods` table. `ip` is `ip:port` where pods share the address of their machine."""

    pod: str
    service: str
    node: str
    zone: str
    region: str
    cell: str
    ip: str
    started_s: float

    def row(self) -> dict[str, Any]:
        return asdict(self)


class Pods:
    """Who was behind a pod name or an address. Answers are indices for `columns`, None for a stranger."""

    def __init__(self, identities: Iterable[PodIdentity]) -> None:
        self.identities = sorted(identities, key=lambda identity: identity.started_s)
        self._by_name = {identity.pod: index for index, identity in enumerate(self.identities)}
        self._by_address: dict[str, list[int]] = {}
        for index, identity in enumerate(self.identities):
            self._by_address.setdefault(identity.ip, []).append(index)
        schema = pa.schema([SCHEMAS["pods"].field(name) for name in PLACE_FIELDS])
        rows = [{name: getattr(identity, name) for name in PLACE_FIELDS} for identity in self.identities]
        self._places = pa.Table.from_pylist(rows, schema=schema).combine_chunks()

    def named(self, pod: str | None) -> int | None:
        return None if pod is None else self._by_name.get(pod)

    def at(self, address: str | None, t_s: float) -> int | None:
        """The pod behind `ip:port` at that time; an address can pass from pod to pod."""
        if address is None:
            return None
        lives = self._by_address.get(address) or self._by_address.get(address.rpartition(":")[0])
        if lives is None:
            return None
        if len(lives) == 1:
            return lives[0]
        return lives[max(0, bisect_right(lives, t_s, key=lambda index: self.identities[index].started_s) - 1)]

    def columns(self, end: str, indices: Sequence[int | None]) -> dict[str, pa.Array]:
        """The six columns `<end>_pod` .. `<end>_cell`, one row for every index."""
        places = self._places.take(pa.array(indices, type=pa.int32()))
        return {f"{end}_{name}": places.column(name).combine_chunks() for name in PLACE_FIELDS}


def ingest_requests(path: Path, writer: TableWriter, clock: Clock, origin_zone: str) -> IngestCounts:
    """Client records -> `requests`: exactly one row for every sent line, unfinished ones last with outcome unknown."""
    sent: dict[str, tuple[Any, ...]] = {}
    total = rows_written = unreadable = orphans = 0
    names = SCHEMAS["requests"].names
    for lines, torn in _blocks(path):
        total, unreadable = total + len(lines) + torn, unreadable + torn
        rows = []
        for line in lines:
            try:
                request_id = line["id"]
                if line["e"] == "f":
                    finish = (line["f"] + 0.0, _int(line["c"]), _OUTCOMES[_OUTCOMES.index(line["o"])], line["m"])
                    if request_id in sent:
                        rows.append(_request(request_id, sent.pop(request_id), finish, clock, origin_zone))
                    else:
                        orphans += 1
                else:
                    partition = line["p"]
                    send = (
                        line["n"],
                        None if partition is None else str(partition),
                        line["i"] + 0.0,
                        line["s"] + 0.0,
                        line["z"],
                    )
                    if request_id in sent:
                        rows.append(_request(request_id, sent[request_id], None, clock, origin_zone))
                    sent[request_id] = send
            except (KeyError, TypeError, ValueError):
                unreadable += 1
        rows_written += _write_rows(writer, names, rows)
    unfinished = [_request(request_id, send, None, clock, origin_zone) for request_id, send in sent.items()]
    rows_written += _write_rows(writer, names, unfinished)
    return IngestCounts(total, rows_written, unreadable, orphans)


def _request(
    request_id: str,
    send: tuple[Any, ...],
    finish: tuple[float, int | None, str, str | None] | None,
    clock: Clock,
    origin_zone: str,
) -> tuple[Any, ...]:
    name, partition, intended_s, sent_s, entry_zone = send
    begun = (request_id, origin_zone, name, partition, clock.from_monotonic(intended_s), clock.from_monotonic(sent_s))
    if finish is None:
        return (*begun, None, None, None, "unknown", NOT_FINISHED, entry_zone)
    finished_s, status, outcome, error = finish
    latency_ms = (finished_s - intended_s) * 1e3
    return (*begun, clock.from_monotonic(finished_s), latency_ms, status, outcome, error, entry_zone)


def ingest_access_log(path: Path, pods: Pods, clock: Clock, hops: TableWriter, attempts: TableWriter) -> IngestCounts:
    """The access log of one proxy -> `hops` (a row a call) and `attempts` (a row a failed try).

    The pod of a line is the source of outbound and gateway calls and the destination of inbound ones. The other end is
    null when no host was chosen, or when the caller was no proxy.
    """
    total = rows_written = unreadable = 0
    for lines, torn in _blocks(path):
        total, unreadable = total + len(lines) + torn, unreadable + torn
        calls: list[tuple[Any, ...]] = []
        tries: list[tuple[Any, ...]] = []
        for line in lines:
            try:
                kind = line[access_log.KIND]
                me = pods.named(line[access_log.POD])
                start_s = clock.from_epoch(float(line[access_log.START]))
                flags = line[access_log.FLAGS]
                flags = None if flags == "-" else flags
                if kind == access_log.ATTEMPT:
                    host = pods.at(line[access_log.UPSTREAM_HOST], start_s)
                    duration_ms = _float(line[access_log.DURATION_MS])
                    # Envoy writes 0 where no answer came.
                    status = _int(line[access_log.STATUS]) or None
                    tries.append((line[access_log.REQUEST_ID], me, host, start_s, duration_ms, status, flags))
                    continue
                direction = _CALLS[kind]
                if direction == "inbound":
                    source, destination = pods.named(line[access_log.PEER]), me
                else:
                    source, destination = me, pods.at(line[access_log.UPSTREAM_HOST], start_s)
                duration_us = _float(line[access_log.DURATION_US])
                calls.append(
                    (
                        line[access_log.REQUEST_ID],
                        direction,
                        source,
                        destination,
                        start_s,
                        None if duration_us is None else duration_us / 1e3,
                        _int(line[access_log.STATUS]),
                        flags,
                        _int(line[access_log.ATTEMPTS]),
                        (_int(line[access_log.BYTES_RECEIVED]) or 0) + (_int(line[access_log.BYTES_SENT]) or 0),
                    )
                )
            except (KeyError, TypeError, ValueError, AttributeError):
                unreadable += 1
        rows_written += _write_hops(hops, pods, calls, ("direction",), ("status", "flags", "attempts", "bytes"))
        rows_written += _write_hops(attempts, pods, tries, (), ("status", "flags"))
    return IngestCounts(total, rows_written, unreadable)


def ingest_outlier_log(path: Path, pod: str, pods: Pods, clock: Clock, events: TableWriter) -> IngestCounts:
    """Envoy's outlier detection log of one pod's proxy -> `events` of kind Endpoint, reason Ejected or Unejected.

    An ejection that Envoy only noted (`enforced` false) has the reason EjectionNotEnforced.
    """
    total = rows = unreadable = 0
    for lines, torn in _blocks(path):
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


def _blocks(path: Path) -> Iterator[tuple[list[Any], int]]:
    """Parsed lines of a file, some megabytes at a time, with the number of lines in the block that are no JSON."""
    with path.open("rb") as file:
        while lines := file.readlines(_BLOCK_BYTES):
            try:
                # One call for the whole block is several times faster than one a line.
                values = orjson.loads(b"[" + b",".join(lines) + b"]")
                readable = len(values) == len(lines)
            except orjson.JSONDecodeError:
                readable = False
            if not readable:
                values = [value for line in lines for value in _parsed(line)]
            yield values, len(lines) - len(values)


def _parsed(line: bytes) -> list[Any]:
    try:
        return [orjson.loads(line)]
    except orjson.JSONDecodeError:
        return []


def _write_rows(writer: TableWriter, names: Sequence[str], rows: list[tuple[Any, ...]]) -> int:
    if rows:
        writer.write(dict(zip(names, zip(*rows, strict=True), strict=True)))
    return len(rows)


def _write_hops(
    writer: TableWriter, pods: Pods, rows: list[tuple[Any, ...]], before: Sequence[str], after: Sequence[str]
) -> int:
    if rows:
        names = ("request_id", *before, "source", "destination", "start_s", "duration_ms", *after)
        columns: dict[str, Any] = dict(zip(names, zip(*rows, strict=True), strict=True))
        ends = {end: pods.columns(end, columns.pop(end)) for end in ("source", "destination")}
        writer.write({**columns, **ends["source"], **ends["destination"]})
    return len(rows)


def _float(value: Any) -> float | None:
    return None if value is None or value == "-" else float(value)


def _int(value: Any) -> int | None:
    return None if value is None or value == "-" else int(value)
