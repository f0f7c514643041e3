"""A breakdown as two tables: requests by phase, and recovery after each change."""

from __future__ import annotations

from collections.abc import Iterator

from rich.text import Text

from testbed.results.measure.breakdown import AfterChange, Breakdown
from testbed.results.measure.phases import PhaseStats
from testbed.results.measure.recovery import Recovery
from testbed.results.show.figures import NONE, seconds, share, since
from testbed.results.show.grid import Grid, NotedGrid, wrapped

_QUANTILES = ("p50", "p90", "p99", "p999")
_INDENT = "  "


def render(breakdown: Breakdown, width: int) -> Iterator[Text]:
    """Lines, as wide as those of the report."""
    what = ", ".join(breakdown.by)
    for title, table in (
        (f"Requests by {what} (latency of ok requests, ms)", _requests(breakdown)),
        (f"Recovery by {what} (times after the change)", _recovery(breakdown)),
    ):
        if table is not None:
            yield from wrapped(Text(title, style="bold"), width)
            yield from (Text(_INDENT) + line for line in table.lines(width - len(_INDENT)))


def _requests(breakdown: Breakdown) -> NotedGrid:
    rows: list[list[str | Text]] = []
    for name, (every, *phases) in breakdown.stats.items():
        rows.append([name, *_counts(every)])
        rows += [[f"  {phase.name}", *_counts(phase)] for phase in phases]
    notes = []
    if breakdown.more:
        notes.append(f"and {breakdown.more} more, with {breakdown.more_requests} requests")
    if breakdown.without:
        notes.append(f"{breakdown.without} requests are of none of them")
    headers = (", ".join(breakdown.by), "sent", "failed", "unknown", "ok", *_QUANTILES)
    return NotedGrid(Grid(headers, rows, (4, len(_QUANTILES))), tuple(map(Text, notes)))


def _counts(phase: PhaseStats) -> list[str | Text]:
    return [
        str(phase.sent),
        str(phase.failed),
        str(phase.unknown),
        share(phase.success_rate),
        *(NONE if (ms := phase.latency_ms[name]) is None else f"{ms:.1f}" for name in _QUANTILES),
    ]


def _recovery(breakdown: Breakdown) -> NotedGrid | None:
    rows: list[list[str | Text]] = []
    for change in breakdown.changes:
        rows.append([change.name, seconds(change.at_s), *[""] * 7])
        rows += [[f"  {name}", "", *_aftermath(change, part)] for name, part in change.parts.items()]
    headers = ("change", "at", "sent", "1st error", "seen", "last error", "recovered", "failed", "unknown")
    return NotedGrid(Grid(headers, rows, (2, 4, 2))) if rows else None


def _aftermath(change: AfterChange, part: Recovery) -> list[str | Text]:
    recover_s = part.time_to_recover_s
    return [
        str(part.sent),
        since(part.first_error_s, change.at_s),
        since(part.first_error_seen_s, change.at_s),
        since(part.last_error_s, change.at_s),
        Text("never", style="red") if recover_s is None else seconds(recover_s),
        str(part.errors.failed),
        str(part.errors.unknown),
    ]
