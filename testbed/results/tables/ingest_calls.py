"""What proxies, and workloads without one, wrote about calls -> `hops` and `attempts`.

Owns the meaning of their lines, of which the fields are `control.views.envoy`'s, and what several lines say together:
what ended a try, and who was behind a virtual address. Memory is bounded by some blocks of lines, and by the
connections that one node's kube-proxy led.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from testbed.control.views import kube_proxy
from testbed.control.views.envoy import access_log
from testbed.results.tables.columns import Floats, each, floats
from testbed.results.tables.lines import IngestCounts, tables
from testbed.results.tables.pods import Pods
from testbed.results.tables.schemas import Clock
from testbed.results.tables.writer import TableWriter

_KINDS = pa.array(
    [access_log.OUTBOUND, access_log.GATEWAY, access_log.INBOUND, access_log.ATTEMPT, access_log.CONNECTION]
)
_CALL = (access_log.POD, access_log.REQUEST_ID, access_log.UPSTREAM_HOST, access_log.UPSTREAM_CLUSTER)
"""What the line of a call has in common with those of its tries."""
PartitionOf = Callable[[str], int | None]
"""The partition of a key, as a string; None for what is none."""

_CELLS = (access_log.PARTITION, access_log.OWNER_CELL, access_log.MAP_VERSION, access_log.ROUTE)

_LINE = pa.schema(
    [
        pa.field(access_log.START, pa.float64(), nullable=False),
        *((name, pa.string()) for name in (access_log.KIND, *_CALL, access_log.PEER, access_log.CALLER)),
        *((name, pa.string()) for name in (access_log.FLAGS, *_CELLS) if name != access_log.MAP_VERSION),
        (access_log.PARTITION_KEY, pa.string()),
        *((name, pa.float64()) for name in (access_log.DURATION_US, access_log.DURATION_MS)),
        *((name, pa.int16()) for name in (access_log.STATUS, access_log.ATTEMPTS)),
        *((name, pa.int64()) for name in (access_log.BYTES_RECEIVED, access_log.BYTES_SENT, access_log.MAP_VERSION)),
        *((name, pa.int64()) for name in (access_log.REQUEST_BYTES, access_log.RESPONSE_BYTES)),
    ]
)
_CONNECTION = pa.schema(
    [
        pa.field(kube_proxy.CONNECTED, pa.float64(), nullable=False),
        pa.field(kube_proxy.CALLER, pa.string(), nullable=False),
        (kube_proxy.ENDPOINT, pa.string()),
    ]
)

_Ended = dict[tuple[Any, ...], list[tuple[float, str]]]
"""Of the calls that ended with flags, by what `_CALL` names: when, and with which."""


@dataclass(frozen=True, slots=True)
class Led:
    """Where a kube-proxy led a connection, `ip:port`; None where the service had no endpoint."""

    endpoint: str | None


class Connections:
    """The connections that the kube-proxy of one node led, from its own lines."""

    def __init__(self, path: Path) -> None:
        self._led: dict[str, list[tuple[float, Led]]] = {}
        self.unreadable = 0
        for lines, unreadable in tables(path, _CONNECTION, quoted=[kube_proxy.CONNECTED]):
            self.unreadable += unreadable
            for at_epoch_s, caller, endpoint in _values(lines, *_CONNECTION.names):
                self._led.setdefault(caller, []).append((at_epoch_s, Led(endpoint)))

    def of(self, caller: str | None, until_epoch_s: float) -> Led | None:
        """The last connection from `caller`, `ip:port`, before that time. A port is used again when it is free."""
        led = [] if caller is None else self._led.get(caller, [])
        at = bisect_right(led, until_epoch_s, key=lambda connection: connection[0])
        return led[at - 1][1] if at else None


@dataclass(frozen=True, slots=True)
class CallTables:
    """Where rows go: `hops` (one for a call), `attempts` (for a failed try), `connections` (for one of TCP)."""

    hops: TableWriter
    attempts: TableWriter
    connections: TableWriter


@contextmanager
def call_tables(run_dir: Path, writer: str) -> Iterator[CallTables]:
    with (
        TableWriter(run_dir, "hops", writer) as hops,
        TableWriter(run_dir, "attempts", writer) as attempts,
        TableWriter(run_dir, "connections", writer) as connections,
    ):
        yield CallTables(hops, attempts, connections)


def ingest_access_log(
    path: Path,
    pods: Pods,
    clock: Clock,
    into: CallTables,
    connections: Connections | None = None,
    partition_of: PartitionOf | None = None,
) -> IngestCounts:
    """The access log of one proxy or workload -> its tables.

    The pod of a line is the source of outbound and gateway calls and the destination of inbound ones. Of the other end
    at least the service is known, unless no route led to one; all is null where the caller was no proxy. A call that a
    cell forwarded came in and went out again: of its one line come two rows.
    `connections` are those of the node's kube-proxy, for a workload without a proxy. `partition_of` is the rule of the
    cells: a proxy that matched keys wrote those.
    """
    total = unreadable = rows_written = 0
    ended: deque[_Ended] = deque(maxlen=3)
    held = _read(_LINE.empty_table(), pods, clock, connections, partition_of)
    for lines, torn in tables(path, _LINE, quoted=[access_log.START]):
        known = lines.filter(pc.is_in(lines[access_log.KIND], value_set=_KINDS))
        total, unreadable = total + len(lines) + torn, unreadable + len(lines) - len(known) + torn
        read = _read(known, pods, clock, connections, partition_of)
        is_try, is_connection = (
            pc.equal(read[access_log.KIND], kind) for kind in (access_log.ATTEMPT, access_log.CONNECTION)
        )
        calls, tries = read.filter(pc.invert(pc.or_(is_try, is_connection))), read.filter(is_try)
        into.hops.write(calls)
        into.connections.write(read.filter(is_connection))
        ended.append(_ended(calls))
        # The line of a call stands right before or after that of its last try, so in a neighbouring block at most.
        into.attempts.write(_explained(held, ended))
        rows_written, held = rows_written + len(read), tries
    into.attempts.write(_explained(held, ended))
    return IngestCounts(total, rows_written, unreadable)


def _read(
    lines: pa.Table,
    pods: Pods,
    clock: Clock,
    connections: Connections | None,
    partition_of: PartitionOf | None,
) -> pa.Table:
    """A row for each call, try or connection, with all columns of its table."""
    inbound = pc.equal(lines[access_log.KIND], access_log.INBOUND).to_numpy()
    forwarded = inbound & (each(lines[access_log.UPSTREAM_CLUSTER], access_log.is_forward) > 0)
    line = np.repeat(np.arange(len(lines)), 1 + forwarded)
    lines, outbound = lines.take(line), ~inbound[line]
    outbound[1:] |= line[1:] == line[:-1]

    start_epoch_s = floats(lines[access_log.START])
    start_s = clock.from_epoch(start_epoch_s)
    # To the end of the answer where it was given to its end, else to when the call ended, which Envoy has in ms.
    duration_ms = pc.coalesce(pc.divide(lines[access_log.DURATION_US], 1e3), lines[access_log.DURATION_MS])
    hosts, flags = lines[access_log.UPSTREAM_HOST], _without(lines[access_log.FLAGS], "-")
    if connections is not None:
        hosts, flags = _led(lines, flags, start_epoch_s + floats(duration_ms) / 1e3, connections)
    own = each(lines[access_log.POD], pods.named)
    called = pods.all_at(hosts, start_s)
    unknown = outbound & (called < 0)
    called[unknown] = each(
        lines[access_log.UPSTREAM_CLUSTER].filter(unknown), lambda called: pods.some(access_log.called_service(called))
    )
    columns = {
        **{name: lines[name] for name in (access_log.KIND, *_CALL, access_log.ATTEMPTS, *_CELLS)},
        "partition": _partitions(lines, partition_of),
        "direction": pc.if_else(outbound, "outbound", "inbound"),
        **pods.columns("source", np.where(outbound, own, each(lines[access_log.PEER], pods.named))),
        **pods.columns("destination", np.where(outbound, called, own)),
        "start_s": start_s,
        "duration_ms": duration_ms,
        # Envoy writes 0 where no answer came, or was given.
        "status": _without(lines[access_log.STATUS], 0),
        "flags": flags,
        "bytes": pc.add(*(pc.fill_null(lines[name], 0) for name in (access_log.BYTES_RECEIVED, access_log.BYTES_SENT))),
        "sent_bytes": pc.fill_null(lines[access_log.BYTES_RECEIVED], 0),
        "received_bytes": pc.fill_null(lines[access_log.BYTES_SENT], 0),
        "request_bytes": pc.fill_null(lines[access_log.REQUEST_BYTES], 0),
        "response_bytes": pc.fill_null(lines[access_log.RESPONSE_BYTES], 0),
        # Envoy writes it for routes without a name, too.
        "route": _without(lines[access_log.ROUTE], ""),
    }
    return pa.table(columns)


def _partitions(lines: pa.Table, partition_of: PartitionOf | None) -> pa.ChunkedArray:
    written, keys = lines[access_log.PARTITION], lines[access_log.PARTITION_KEY]
    if partition_of is None or keys.null_count == len(keys):
        return written
    found = each(keys, lambda key: None if key is None else partition_of(key))
    return pc.coalesce(written, pc.cast(pa.array(found, mask=found < 0), pa.string()))


def _without(column: pa.ChunkedArray, value: object) -> pa.ChunkedArray:
    """Null for this value."""
    return pc.if_else(pc.equal(column, value), None, column)


def _led(
    lines: pa.Table, flags: pa.ChunkedArray, end_epoch_s: Floats, connections: Connections
) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """The host that was called and the flags: as they stand there, or by the connection that carried the call."""
    hosts, callers = lines[access_log.UPSTREAM_HOST].to_pylist(), lines[access_log.CALLER].to_pylist()
    flags = flags.to_pylist()
    for row, until_epoch_s in enumerate(end_epoch_s.tolist()):
        if hosts[row] is None and not isnan(until_epoch_s) and (led := connections.of(callers[row], until_epoch_s)):
            hosts[row], flags[row] = led.endpoint, flags[row] if led.endpoint else access_log.NO_UPSTREAM
    return pa.chunked_array([hosts], pa.string()), pa.chunked_array([flags], pa.string())


def _ended(calls: pa.Table) -> _Ended:
    made = pc.not_equal(calls[access_log.KIND], access_log.INBOUND)
    flagged = calls.filter(pc.and_(made, pc.and_(pc.is_valid(calls["flags"]), pc.is_valid(calls["duration_ms"]))))
    ended: _Ended = {}
    for *call, start_s, duration_ms, flags in _values(flagged, *_CALL, "start_s", "duration_ms", "flags"):
        ended.setdefault(tuple(call), []).append((start_s + duration_ms / 1e3, flags))
    return ended


def _explained(tries: pa.Table, ended: Collection[_Ended]) -> pa.Table:
    """What ended its call ended a try, where nothing else did: it is the flagged call that ended nearest."""
    explained = []
    known = ("start_s", "duration_ms", "status", "flags")
    for *call, start_s, duration_ms, status, flags in _values(tries, *_CALL, *known):
        calls = [each for by_call in ended for each in by_call.get(tuple(call), ())]
        if calls and status is None and flags is None and duration_ms is not None:
            end_s = start_s + duration_ms / 1e3
            flags = min(calls, key=lambda call: abs(call[0] - end_s))[1]
        explained.append(flags)
    return tries.set_column(tries.column_names.index("flags"), "flags", pa.array(explained, pa.string()))


def _values(table: pa.Table, *names: str) -> Iterator[tuple[Any, ...]]:
    """Row by row."""
    return zip(*(table[name].to_pylist() for name in names), strict=True)
