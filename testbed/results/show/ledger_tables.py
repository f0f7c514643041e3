"""The locality ledger as tables: each phase in a line, and of the first one who called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich.text import Text

from testbed.objects.places import DISTANCES, Distance
from testbed.results.measure.expected import MONTH_S, Compared, What
from testbed.results.measure.ledger import Account, PhaseLedger, Traffic
from testbed.results.measure.phases import PhaseStats
from testbed.results.measure.rights import Right
from testbed.results.show.figures import NONE, share, volume
from testbed.results.show.grid import Grid, NotedGrid
from testbed.results.show.summary import Summary

_CALLERS = 6
_BORDERS: dict[Distance, str] = {
    "same_node": "in node",
    "same_zone": "to node",
    "same_city": "to zone",
    "same_region": "to city",
    "cross_region": "to region",
}
"""What a call crosses last: the border of its node, of its zone, and so on."""
_RIGHTS: dict[Right, str] = {
    "by_class": "by class",
    "declared": "declared",
    "cross_cell": "other key",
    "first_hit": "first hit",
    "stale_cookie": "old cookie",
    "stale_map": "old map",
    "unkeyed": "no key",
    "failover": "to backup",
    "leak": "leaks",
}


def by_distance(summary: Summary) -> NotedGrid | None:
    """How far calls went, and what it would cost if they went on like this."""
    ledgers = [(phase, ledger) for phase, ledger in _measured(summary) if ledger.all.calls]
    if not ledgers:
        return None
    seen = [each for each in DISTANCES if any(each in ledger.by_distance for _, ledger in ledgers)]
    rows: list[list[str | Text]] = []
    for phase, ledger in ledgers:
        for name, account in _with_callers(phase.name, ledger, {} if rows else ledger.by_service):
            whole, crossing = account.all, account.cross_zone.bytes
            shares = (share(account.by_distance.get(each, Traffic()).calls / whole.calls, 1) for each in seen)
            cost = NONE if whole.cost is None else f"{whole.cost / (phase.end_s - phase.start_s) * MONTH_S:,.2f}"
            rows.append([name, str(whole.calls), *shares, volume(crossing), cost])
    borders = _BORDERS if summary.ledger.cities else {**_BORDERS, "same_region": "to zone"}
    carried = ("out of zone", f"{summary.ledger.prices.currency}/month")
    headers = ("phase", "calls", *(borders[each] for each in seen), *carried)
    grid = Grid(headers, rows, (1 + len(seen), 2))
    return NotedGrid(grid, _more(len(ledgers[0][1].by_service), "services"))


def by_right(summary: Summary) -> NotedGrid | None:
    """Where there are cells: how many calls between pods stayed where their partition is, and why others did not."""
    ledgers = [(phase, ledger) for phase, ledger in _measured(summary) if ledger.between_pods]
    if not ledgers:
        return None
    seen = [each for each in _RIGHTS if each == "leak" or any(each in ledger.by_right for _, ledger in ledgers)]
    rows: list[list[str | Text]] = []
    for phase, ledger in ledgers:
        for name, account in _with_callers(phase.name, ledger, {} if rows else ledger.by_cell):
            calls = {each: account.by_right.get(each, Traffic()).calls for each in seen}
            counts = (Text(str(count), "red" if each == "leak" and count else "") for each, count in calls.items())
            rows.append([name, str(account.between_pods), share(account.own_share), *counts])
    headers = ("phase", "calls", "in cell", *(_RIGHTS[each] for each in seen))
    notes = (
        *_more(len(ledgers[0][1].by_cell), "cells"),
        *_by_rule(ledgers[-1][1]),
        *_other_keys(summary, ledgers[-1][1]),
        *(_beside(each, summary.ledger.prices.currency) for each in summary.ledger.as_expected),
    )
    return NotedGrid(Grid(headers, rows, (2, len(seen))), notes)


def _by_rule(ledger: PhaseLedger) -> tuple[Text, ...]:
    rules = ", ".join(f"{name} {account.all.calls}" for name, account in ledger.by_rule.items())
    return (Text(f"declared calls from cell to cell, by rule: {rules}"),) if rules else ()


def _other_keys(summary: Summary, ledger: PhaseLedger) -> tuple[Text, ...]:
    """Without rules there are none that these calls break: who expects no leaks has to know."""
    calls = ledger.by_right.get("cross_cell", Traffic()).calls
    if not calls:
        return ()
    wanted = any(each.metric == "leaks" for each in summary.expectations)
    text = (
        f"{calls} calls for another key are no leaks, as cells.crossCell has no rules; with `crossCell: {{}}` all are"
    )
    return (Text(text, "yellow" if wanted else ""),)


_EXPECTED: dict[What, str] = {
    "partition_local_share": "in cell",
    "forwards": "forwards a request",
    "questions": "asked a router",
    "out_of_zone": "calls out of their zone",
    "bodies_cost_per_month": "money for bodies, a month,",
}


def _beside(each: Compared, currency: str) -> Text:
    def figure(value: float) -> str:
        return f"{value:,.2f} {currency}" if each.what == "bodies_cost_per_month" else share(value)

    text = f"{_EXPECTED[each.what]} in the steady phase: {figure(each.measured)}, expected {figure(each.expected)}"
    return Text(text) if each.by_chance else Text(f"{text}: chance explains {figure(each.tolerance)} only", "yellow")


def _measured(summary: Summary) -> Iterator[tuple[PhaseStats, PhaseLedger]]:
    for phase in summary.phases:
        if phase.name != "warmup":
            yield phase, summary.ledger.by_phase[phase.name]


def _with_callers(name: str, ledger: PhaseLedger, callers: Mapping[str, Account]) -> Iterator[tuple[str, Account]]:
    yield name, ledger
    for caller, account in list(callers.items())[:_CALLERS]:
        yield f"  from {caller}", account


def _more(callers: int, what: str) -> tuple[Text, ...]:
    return (Text(f"and calls from {callers - _CALLERS} more {what}"),) if callers > _CALLERS else ()
