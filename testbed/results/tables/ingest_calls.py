"""What proxies, and workloads without one, wrote about calls -> `hops` and `attempts`.

Owns the meaning of their lines, of which the fields are `control.views.envoy`'s, and what several lines say together:
what ended a try, and who was behind a virtual address. Memory is bounded by some blocks of lines, and by the
connections that one node's kube-proxy led.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.control.views import kube_proxy
from testbed.control.views.envoy import access_log
from testbed.results.tables.lines import IngestCounts, blocks, number, whole
from testbed.results.tables.pods import Pods
from testbed.results.tables.schemas import Clock
from testbed.results.tables.writer import TableWriter

_DIRECTIONS = {access_log.OUTBOUND: "outbound", access_log.GATEWAY: "outbound", access_log.INBOUND: "inbound"}

_OF_CALLS = (
    *("status", "flags", "attempts", "bytes", "request_bytes", "response_bytes"),
    *("partition", "owner_cell", "map_version", "route"),
)

_Ended = dict[tuple[Any, ...], list[tuple[float, str]]]
"""Of the calls that ended with flags: when, and with which. By pod, request, host and what was called."""


@dataclass(frozen=True, slots=True)
class Led:
    """Where a kube-proxy led a connection, `ip:port`; None where the service had no endpoint."""

    endpoint: str | None


class Connections:
    """The connections that the kube-proxy of one node led, from its own lines."""

    def __init__(self, path: Path) -> None:
        self._led: dict[str, list[tuple[float, Led]]] = {}
        self.unreadable = 0
        for lines, torn in blocks(path):
            self.unreadable += torn
            for line in lines:
                try:
                    at_epoch_s = float(line[kube_proxy.CONNECTED])
                    led = self._led.setdefault(line[kube_proxy.CALLER], [])
                    led.append((at_epoch_s, Led(line[kube_proxy.ENDPOINT])))
                except (KeyError, TypeError, ValueError):
                    self.unreadable += 1

    def of(self, caller: str | None, until_epoch_s: float) -> Led | None:
        """The last connection from `caller`, `ip:port`, before that time. A port is used again when it is free."""
        led = [] if caller is None else self._led.get(caller, [])
        at = bisect_right(led, until_epoch_s, key=lambda connection: connection[0])
        return led[at - 1][1] if at else None


@dataclass(slots=True)
class _Try:
    request_id: str | None
    source: int | None
    destination: int | None
    start_s: float
    duration_ms: float | None
    status: int | None
    flags: str | None
    call: tuple[Any, ...]
    """What it has in common with the line of its call."""

    def end_by(self, ended: Iterable[_Ended]) -> None:
        """What ended its call ended this try, where nothing else did: it is the flagged call that ended nearest."""
        if self.status is None and self.flags is None and self.duration_ms is not None:
            end_s = self.start_s + self.duration_ms / 1e3
            calls = [call for by_call in ended for call in by_call.get(self.call, ())]
            if calls:
                self.flags = min(calls, key=lambda call: abs(call[0] - end_s))[1]


def ingest_access_log(
    path: Path,
    pods: Pods,
    clock: Clock,
    hops: TableWriter,
    attempts: TableWriter,
    connections: Connections | None = None,
) -> IngestCounts:
    """The access log of one proxy or workload -> `hops` (a row a call) and `attempts` (a row a failed try).

    The pod of a line is the source of outbound and gateway calls and the destination of inbound ones. Of the other end
    at least the service is known, unless no route led to one; all is null where the caller was no proxy. A call that a
    cell forwarded came in and went out again: of its one line come two rows.
    `connections` are those of the node's kube-proxy, for a workload without a proxy.
    """
    total = rows_written = unreadable = 0
    ended: deque[_Ended] = deque(maxlen=3)
    held: list[_Try] = []
    for lines, torn in blocks(path):
        total, unreadable = total + len(lines) + torn, unreadable + torn
        calls: list[tuple[Any, ...]] = []
        tries: list[_Try] = []
        ended.append({})
        for line in lines:
            try:
                kind = line[access_log.KIND]
                me = pods.named(line[access_log.POD])
                start_s = clock.from_epoch(float(line[access_log.START]))
                duration_ms = _duration_ms(line)
                host, flags = _upstream(line, connections, duration_ms)
                called = line[access_log.UPSTREAM_CLUSTER]
                # Envoy writes 0 where no answer came, or was given.
                status = whole(line[access_log.STATUS]) or None
                call = (line[access_log.POD], line[access_log.REQUEST_ID], line[access_log.UPSTREAM_HOST], called)
                if kind == access_log.ATTEMPT:
                    destination = _destination(pods, host, called, start_s)
                    tries.append(_Try(call[1], me, destination, start_s, duration_ms, status, flags, call))
                    continue
                direction = _DIRECTIONS[kind]
                bodies = (whole(line[access_log.BYTES_RECEIVED]) or 0, whole(line[access_log.BYTES_SENT]) or 0)
                if direction == "inbound":
                    source, destination = pods.named(line[access_log.PEER]), me
                else:
                    source, destination = me, _destination(pods, host, called, start_s)
                    if flags is not None and duration_ms is not None:
                        ended[-1].setdefault(call, []).append((start_s + duration_ms / 1e3, flags))
                known = (
                    start_s,
                    duration_ms,
                    status,
                    flags,
                    whole(line[access_log.ATTEMPTS]),
                    sum(bodies),
                    whole(line[access_log.REQUEST_BYTES]) or 0,
                    whole(line[access_log.RESPONSE_BYTES]) or 0,
                    line.get(access_log.PARTITION),
                    line.get(access_log.OWNER_CELL),
                    whole(line.get(access_log.MAP_VERSION)),
                    # Envoy writes it for routes without a name, too.
                    line.get(access_log.ROUTE) or None,
                )
                calls.append((call[1], direction, source, destination, *known))
                if direction == "inbound" and access_log.is_forward(called):
                    calls.append((call[1], "outbound", me, _destination(pods, host, called, start_s), *known))
            except (KeyError, TypeError, ValueError, AttributeError):
                unreadable += 1
        rows_written += _write(hops, pods, calls, ("direction",), _OF_CALLS)
        # The line of a call stands right before or after that of its last try, so in a neighbouring block at most.
        rows_written += _write_tries(attempts, pods, held, ended)
        held = tries
    rows_written += _write_tries(attempts, pods, held, ended)
    return IngestCounts(total, rows_written, unreadable)


def _duration_ms(line: Mapping[str, Any]) -> float | None:
    """In microseconds where the answer was given to its end, else to when the call ended, which Envoy has in ms."""
    duration_us = number(line.get(access_log.DURATION_US))
    return number(line.get(access_log.DURATION_MS)) if duration_us is None else duration_us / 1e3


def _upstream(
    line: Mapping[str, Any], connections: Connections | None, duration_ms: float | None
) -> tuple[str | None, str | None]:
    """The host that was called and the flags: as they stand there, or by the connection that carried the call."""
    host, flags = line[access_log.UPSTREAM_HOST], line[access_log.FLAGS]
    flags = None if flags == "-" else flags
    if host is None and connections is not None and duration_ms is not None:
        end_epoch_s = float(line[access_log.START]) + duration_ms / 1e3
        led = connections.of(line.get(access_log.CALLER), end_epoch_s)
        if led is not None:
            return led.endpoint, flags if led.endpoint is not None else access_log.NO_UPSTREAM
    return host, flags


def _destination(pods: Pods, host: str | None, called: str | None, t_s: float) -> int | None:
    found = pods.at(host, t_s)
    return pods.some(access_log.called_service(called)) if found is None else found


def _write_tries(attempts: TableWriter, pods: Pods, tries: Sequence[_Try], ended: Iterable[_Ended]) -> int:
    for each in tries:
        each.end_by(ended)
    rows = [
        (each.request_id, each.source, each.destination, each.start_s, each.duration_ms, each.status, each.flags)
        for each in tries
    ]
    return _write(attempts, pods, rows, (), ("status", "flags"))


def _write(
    writer: TableWriter, pods: Pods, rows: Sequence[tuple[Any, ...]], before: Sequence[str], after: Sequence[str]
) -> int:
    if rows:
        names = ("request_id", *before, "source", "destination", "start_s", "duration_ms", *after)
        columns: dict[str, Any] = dict(zip(names, zip(*rows, strict=True), strict=True))
        ends = {end: pods.columns(end, columns.pop(end)) for end in ("source", "destination")}
        writer.write({**columns, **ends["source"], **ends["destination"]})
    return len(rows)
