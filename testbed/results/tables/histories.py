"""Client records of a store's keys -> `operations`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loadgen import records
from testbed.results.tables.schemas import Clock
from testbed.results.tables.writer import TableWriter

_SERVER_ERROR = 500


class Histories:
    """Of one load process, told line by line, also those that are of no operation. `table` is None where there are
    none."""

    def __init__(self, table: TableWriter | None, clock: Clock) -> None:
        self._table = table
        self._clock = clock
        self._under_way: dict[str, dict[str, Any]] = {}

    def sent(self, request_id: str, line: Mapping[str, Any]) -> None:
        if records.KEY not in line or self._table is None:
            return
        is_write = line[records.VALUE] is not None
        self._under_way[request_id] = {
            "request_id": request_id,
            "process": line[records.PROCESS] or request_id,
            "key": str(line[records.KEY]),
            "partition": None,
            "operation": "write" if is_write else "read",
            "value": line[records.VALUE],
            "invoked_s": self._clock.from_monotonic(line[records.SENT_S] + 0.0),
            "returned_s": None,
            "outcome": "unknown",
            "owner": None,
        }

    def finished(self, request_id: str, line: Mapping[str, Any]) -> None:
        row = self._under_way.pop(request_id, None)
        if row is None or self._table is None:
            return
        row["returned_s"] = self._clock.from_monotonic(line[records.FINISHED_S] + 0.0)
        row["partition"] = line.get(records.PARTITION)
        row["outcome"], status = line[records.OUTCOME], line[records.STATUS]
        if row["outcome"] == "failed" and status is not None and status >= _SERVER_ERROR:
            # A proxy says so, too, of a connection that broke when the store had it already.
            row["outcome"] = "unknown"
        if row["operation"] == "read":
            row["value"] = line.get(records.VALUE)
        else:
            row["owner"] = line.get(records.OWNER)
        self._table.append(row)

    def end(self) -> None:
        """Nothing more comes of what is under way."""
        for row in self._under_way.values():
            if self._table is not None:
                self._table.append(row)
        self._under_way.clear()
