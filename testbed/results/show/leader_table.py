"""Changes of leaders, each beside the fault or operation that was the last before it."""

from __future__ import annotations

from rich.text import Text

from testbed.results.show.figures import NONE, seconds
from testbed.results.show.grid import Grid, NotedGrid
from testbed.results.show.summary import Summary

_FIRST = 24


def leader_table(summary: Summary) -> NotedGrid | None:
    """None where nobody began or ceased to lead while load was sent."""
    changes = summary.leaders
    if not changes:
        return None
    rows: list[list[str | Text]] = []
    for change in changes[:_FIRST]:
        cause, since_s = _cause(summary, change.t_s)
        what = Text(change.what, style="" if change.what == "leads" else "yellow")
        blocked = NONE if change.blocked_s is None else seconds(change.blocked_s)
        told = [change.log, seconds(change.t_s), change.partitions, change.who]
        rows.append([*told, what, str(change.term), blocked, cause, NONE if since_s is None else seconds(since_s)])
    headers = ("log", "at", "partitions", "replica", "", "term", "blocked", "last change", "since then")
    more = len(changes) - _FIRST
    notes = (Text(f"and {more} more; all are in the table events"),) if more > 0 else ()
    return NotedGrid(Grid(headers, rows), notes)


def _cause(summary: Summary, t_s: float) -> tuple[str, float | None]:
    """The last fault, operation or heal before it, and how long it was ago. It may have other causes."""
    moments = [(fault.applied_s, fault.name) for fault in summary.faults]
    moments += [(fault.healed_s, f"{fault.name} healed") for fault in summary.faults if fault.healed_s is not None]
    before = [moment for moment in moments if moment[0] <= t_s]
    if not before:
        return NONE, None
    at_s, name = max(before)
    return name, t_s - at_s
