"""What clients wrote to a store's keys and read of them, and what of that must not be."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
from rich.text import Text

from testbed.results.measure.histories.check import HistoryReport
from testbed.results.measure.histories.findings import Finding, Kind
from testbed.results.show.figures import seconds
from testbed.results.show.grid import Grid, NotedGrid
from testbed.results.show.summary import FoundInHistory, HistoryFigures, Summary

_FIRST = 20
"""Findings of each kind that a summary has one by one."""


def history_figures(history: HistoryReport, operations: pa.Table) -> HistoryFigures:
    writes = pc.equal(operations["operation"], "write")

    def count(chosen: pa.ChunkedArray, outcome: str) -> int:
        both = pc.and_(chosen, pc.equal(operations["outcome"], outcome))
        return pc.sum(both).as_py() or 0

    found = {kind: history.of_kind(kind) for kind in Kind}
    return HistoryFigures(
        operations=len(operations),
        acknowledged_writes=count(writes, "ok"),
        unknown_writes=count(writes, "unknown"),
        reads=count(pc.invert(writes), "ok"),
        found={kind.value: len(findings) for kind, findings in found.items()},
        first=tuple(_found(finding) for findings in found.values() for finding in findings[:_FIRST]),
        gave_up=history.gave_up,
    )


def _found(finding: Finding) -> FoundInHistory:
    operation, other = finding.operation, finding.other
    return FoundInHistory(
        kind=finding.kind.value,
        key=operation.key,
        partition=operation.partition,
        value=operation.value,
        process=operation.process,
        invoked_s=operation.invoked_s,
        returned_s=operation.returned_s,
        other_value=None if other is None else other.value,
        other_invoked_s=None if other is None else other.invoked_s,
    )


def history_table(summary: Summary) -> NotedGrid | None:
    """None where clients did nothing to a store's keys."""
    history = summary.history
    if history is None:
        return None
    rows: list[list[str | Text]] = []
    for kind, count in history.found.items():
        of_kind = [each for each in history.first if each.kind == kind]
        where = ["", ""]
        if of_kind:
            first = min(of_kind, key=lambda each: each.invoked_s)
            where = [first.key, seconds(first.invoked_s)]
        rows.append([kind, Text(str(count), style="red" if count else ""), *where])
    told = f"{history.acknowledged_writes} writes were acknowledged, {history.unknown_writes} may have been done"
    notes = [Text(f"{told}; {history.reads} reads were answered")]
    if history.gave_up:
        notes.append(Text(f"too much was concurrent to say whether {len(history.gave_up)} keys are linearizable"))
    return NotedGrid(Grid(("found", "count", "first key", "at"), rows), tuple(notes))
