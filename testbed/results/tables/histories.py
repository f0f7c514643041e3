"""Client records of a store's keys -> `operations`."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from loadgen import records
from testbed.results.tables.columns import floats, nullable
from testbed.results.tables.schemas import Clock

_SERVER_ERROR = 500


def operations_of(sent: pa.Table, finished: pa.Table, clock: Clock) -> pa.Table:
    """A row for each request that is an operation. `finished` is, row by row, what became of `sent`, if only null."""
    chosen = pc.is_valid(sent[records.KEY])
    sent, finished = sent.filter(chosen), finished.filter(chosen)
    outcome, writes = pc.fill_null(finished[records.OUTCOME], "unknown"), pc.is_valid(sent[records.VALUE])
    # A proxy says so, too, of a connection that broke when the store had it already.
    says_failed = pc.and_(pc.equal(outcome, "failed"), pc.greater_equal(finished[records.STATUS], _SERVER_ERROR))
    columns = {
        "request_id": sent[records.ID],
        "process": pc.coalesce(sent[records.PROCESS], sent[records.ID]),
        "key": sent[records.KEY],
        "partition": finished[records.PARTITION],
        "operation": pc.if_else(writes, "write", "read"),
        "value": pc.if_else(writes, sent[records.VALUE], finished[records.VALUE]),
        "invoked_s": clock.from_monotonic(floats(sent[records.SENT_S])),
        "returned_s": nullable(clock.from_monotonic(floats(finished[records.FINISHED_S]))),
        "outcome": pc.if_else(pc.fill_null(says_failed, False), "unknown", outcome),
        "owner": finished[records.OWNER],
    }
    return pa.table(columns)
