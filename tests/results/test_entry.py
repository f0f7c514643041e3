"""How clients found another gateway, and what that cost: an entry of its own in every aftermath."""

from __future__ import annotations

import pyarrow as pa

from testbed.results.measure.entry import Entries, EntryMove
from testbed.results.measure.outcomes import Errors
from testbed.results.tables.columns import Requests
from testbed.results.tables.facts import AppliedFault
from testbed.results.tables.schemas import SCHEMAS

FAULT = AppliedFault("lose-a", 5.0, 5.0, 10.0)


def _row(origin: str, sent_s: float, entry: str | None, outcome: str = "ok", took_s: float = 0.01) -> dict[str, object]:
    times = {"intended_s": sent_s - 0.001, "sent_s": sent_s, "finished_s": sent_s + took_s}
    return {"origin_zone": origin, "entry_zone": entry, "outcome": outcome, **times}


def _entries(rows: list[dict[str, object]], answers: list[tuple[float, str]] = []) -> Entries:  # noqa: B006
    table = pa.Table.from_pylist(rows, schema=SCHEMAS["requests"])
    events = [{"t_s": t_s, "object": zone, "reason": "EntryChanged"} for t_s, zone in answers]
    events.append({"t_s": 5.1, "object": "a", "reason": "NodeNotReady"})
    return Entries.of(table, Requests.of(table, [FAULT]), pa.Table.from_pylist(events, schema=SCHEMAS["events"]))


def test_the_entry_lasts_from_the_first_request_lost_at_a_gateway_until_clients_go_to_another() -> None:
    rows = [
        _row("a", 4.0, "a"),
        _row("a", 4.9, "a", "unknown", took_s=1.0),  # in flight when the fault comes
        _row("a", 5.5, "a", "unknown"),
        _row("a", 6.0, "a", "failed"),
        _row("a", 6.2, "a"),
        _row("a", 6.6, "b"),
        _row("a", 6.7, "b", "failed"),  # not at the gateway that was left
        _row("b", 6.0, "b", "failed"),
    ]
    moves = _entries(rows, [(-2.0, "a"), (6.4, "a"), (6.5, "b")]).moves(5.0, 10.0)
    assert moves == (EntryMove("a", "a", "b", 5.0, 6.4, 6.6, Errors(failed=1, unknown=2)),)


def test_rows_in_any_order_and_clients_that_come_back_after_the_heal() -> None:
    rows = [_row("a", 12.0, "a"), _row("a", 11.0, "b"), _row("a", 6.0, "b"), _row("a", 5.2, "a"), _row("a", 1.0, "a")]
    entries = _entries(rows, [(11.5, "a")])
    assert entries.moves(5.0, 10.0) == (EntryMove("a", "a", "b", 6.0, None, 6.0, Errors()),)
    assert entries.moves(10.0, 20.0) == (EntryMove("a", "b", "a", 11.5, 11.5, 12.0, Errors()),)


def test_clients_that_stay_or_send_nothing_or_leave_the_cluster_do_not_move() -> None:
    rows = [_row("a", 4.0, "a"), _row("a", 6.0, "a", "failed"), _row("b", 4.0, "b"), _row("b", 6.0, None)]
    assert _entries([*rows, _row("c", 6.0, "b")], [(6.4, "a")]).moves(5.0, 10.0) == ()
    assert _entries([]).moves(5.0, 10.0) == ()


def test_clients_that_are_directed_move_only_within_their_cell() -> None:
    def row(sent_s: float, cell: str, entry: str, outcome: str = "ok") -> dict[str, object]:
        return {**_row("a", sent_s, entry, outcome), "cell": cell}

    rows = [row(4.0, "rz01", "a"), row(4.5, "rz02", "c"), row(5.2, "rz02", "c"), row(5.3, "rz01", "a", "unknown")]
    entries = _entries([*rows, row(6.0, "rz02", "c"), row(6.5, "rz01", "b")], [(6.4, "a")])
    assert entries.moves(5.0, 10.0) == (EntryMove("a", "a", "b", 5.3 - 0.001, 6.4, 6.5, Errors(unknown=1), "rz01"),)
