"""The tables of a run: one explicit Arrow schema each, and the clock that all their times are read from.

Owns columns, types and units. Files are `writer`'s, rows are `ingest`'s and the emulation's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

_NAME = pa.dictionary(pa.int32(), pa.string())
"""A string that repeats from row to row."""

PLACE_FIELDS = ("pod", "service", "node", "zone", "region", "cell")
"""What identifies one end of a hop, from the most to the least exact."""


def _places(*ends: str) -> list[tuple[str, pa.DataType]]:
    return [(f"{end}_{field}", _NAME) for end in ends for field in PLACE_FIELDS]


SCHEMAS: dict[str, pa.Schema] = {
    # What a client saw; latency counts from the intended send time. `outcome` is ok, failed or unknown. The last four
    # are of clients that are directed: where to, by which version of the map, and what asking a router took.
    "requests": pa.schema(
        [
            ("request_id", pa.string()),
            ("origin_zone", _NAME),
            ("name", _NAME),
            ("method", _NAME),
            ("path", pa.string()),
            ("partition", _NAME),
            ("intended_s", pa.float64()),
            ("sent_s", pa.float64()),
            ("finished_s", pa.float64()),
            ("latency_ms", pa.float64()),
            ("status", pa.int16()),
            ("outcome", _NAME),
            ("error", _NAME),
            ("entry_zone", _NAME),
            ("sent_bytes", pa.int64()),
            ("received_bytes", pa.int64()),
            ("cell", _NAME),
            ("map_version", pa.int64()),
            ("questions", pa.int16()),
            ("router_ms", pa.float64()),
        ]
    ),
    # What a client did to a key of a store. `process` is a client that does one thing after the other; `value` is what
    # was written or read. `outcome` unknown: it may have been done, or may be yet, which a 5xx does not tell either.
    "operations": pa.schema(
        [
            ("request_id", pa.string()),
            ("process", _NAME),
            ("key", _NAME),
            ("partition", _NAME),
            ("operation", _NAME),
            ("value", pa.string()),
            ("invoked_s", pa.float64()),
            ("returned_s", pa.float64()),
            ("outcome", _NAME),
            ("owner", _NAME),
        ]
    ),
    # One call through one proxy. `direction` is outbound (gateways too) or inbound; an end nobody knows is null, but of
    # a destination at least the service is known. No status where the caller left. Where there are cells, the last four
    # say for which partition it was, who owns that by which version of the map, and why the call went where it went.
    "hops": pa.schema(
        [
            ("request_id", pa.string()),
            ("direction", _NAME),
            *_places("source", "destination"),
            ("start_s", pa.float64()),
            ("duration_ms", pa.float64()),
            ("status", pa.int16()),
            ("flags", _NAME),
            ("attempts", pa.int16()),
            ("bytes", pa.int64()),
            ("request_bytes", pa.int64()),
            ("response_bytes", pa.int64()),
            ("partition", _NAME),
            ("owner_cell", _NAME),
            ("map_version", pa.int64()),
            ("route", _NAME),
        ]
    ),
    # One try of an outbound call that failed, whether or not a retry then saved the call; no status without an answer.
    "attempts": pa.schema(
        [
            ("request_id", pa.string()),
            *_places("source", "destination"),
            ("start_s", pa.float64()),
            ("duration_ms", pa.float64()),
            ("status", pa.int16()),
            ("flags", _NAME),
        ]
    ),
    # One connection of a pod, through its proxy, to a service that speaks TCP; a row when it has ended.
    "connections": pa.schema(
        [
            *_places("source", "destination"),
            ("start_s", pa.float64()),
            ("duration_ms", pa.float64()),
            ("flags", _NAME),
            ("sent_bytes", pa.int64()),
            ("received_bytes", pa.int64()),
        ]
    ),
    # What happened, with Kubernetes' kinds and CamelCase reasons; `details` is a JSON object.
    "events": pa.schema(
        [
            ("t_s", pa.float64()),
            ("source", _NAME),
            ("kind", _NAME),
            ("object", _NAME),
            ("reason", _NAME),
            ("details", pa.string()),
        ]
    ),
    # One version of one type of configuration on its way to one proxy; a NACK has an error and no `acked_s`.
    "pushes": pa.schema(
        [
            ("proxy", _NAME),
            ("type", _NAME),
            ("version", pa.string()),
            ("sent_s", pa.float64()),
            ("acked_s", pa.float64()),
            ("error", _NAME),
            ("resources", pa.list_(pa.int32())),
        ]
    ),
    # A content that was ever pushed, once each, in the order in which they were first; `content` is a JSON object.
    "resources": pa.schema([("number", pa.int32()), ("type", _NAME), ("name", _NAME), ("content", pa.string())]),
    # One second of one directed link: its declared delay with what faults did to it then, and how long the bytes of
    # that second should have taken by the declaration (bandwidth, waiting and retransmission included), and took.
    "links": pa.schema(
        [
            ("second_s", pa.float64()),
            ("source", _NAME),
            ("destination", _NAME),
            ("declared_ms", pa.float64()),
            ("expected_p50_ms", pa.float64()),
            ("achieved_p50_ms", pa.float64()),
            ("achieved_p99_ms", pa.float64()),
            ("bytes", pa.int64()),
            ("dropped", pa.int64()),
        ]
    ),
    # One sample of one machine; 100 percent is all its cores; lateness is how late the sampler itself woke up.
    "machines": pa.schema(
        [
            ("t_s", pa.float64()),
            ("machine", _NAME),
            ("cpu_percent", pa.float64()),
            ("memory_bytes", pa.int64()),
            ("network_bytes", pa.int64()),
            ("lateness_ms", pa.float64()),
        ]
    ),
    # Every pod that ever ran, with the address that callers connect to.
    "pods": pa.schema([*((name, _NAME) for name in PLACE_FIELDS), ("ip", pa.string()), ("started_s", pa.float64())]),
}

LATER_COLUMNS: dict[str, frozenset[str]] = {
    "requests": frozenset(
        {"method", "path", "sent_bytes", "received_bytes", "cell", "map_version", "questions", "router_ms"}
    ),
    "hops": frozenset({"request_bytes", "response_bytes", "partition", "owner_cell", "map_version", "route"}),
    "pushes": frozenset({"resources"}),
    "links": frozenset({"expected_p50_ms"}),
}
"""Columns that tables of earlier versions have not: there they are null."""


LATER_TABLES = frozenset({"operations", "resources", "connections"})
"""Tables that runs of earlier versions do not have."""


_Times = TypeVar("_Times", float, npt.NDArray[np.float64])


@dataclass(frozen=True, slots=True)
class Clock:
    """Turns one machine's clocks into seconds since the run began, which is when the load started.

    `rate` is how many of its seconds pass in one of the machine that drives the run.
    """

    t0_monotonic_s: float
    epoch_minus_monotonic_s: float
    rate: float = 1.0

    def from_monotonic(self, monotonic_s: _Times) -> _Times:
        return (monotonic_s - self.t0_monotonic_s) / self.rate

    def from_epoch(self, epoch_s: _Times) -> _Times:
        return self.from_monotonic(epoch_s - self.epoch_minus_monotonic_s)
