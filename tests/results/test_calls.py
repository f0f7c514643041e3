from __future__ import annotations

from typing import Any

import pyarrow as pa

from testbed.results.measure.calls import Calls, Completeness, calls_made, completeness
from testbed.results.measure.phases import Phase
from testbed.results.tables.schemas import SCHEMAS

PHASE = Phase("steady", 0.0, 10.0)


def _hop(source: tuple[str | None, str], destination: tuple[str | None, str], **fields: Any) -> dict[str, Any]:
    ends = {"source_zone": source[0], "source_cell": source[1]}
    ends |= {"destination_zone": destination[0], "destination_cell": destination[1]}
    return {"direction": "outbound", "start_s": 1.0, "destination_service": "web", **ends, **fields}


def _calls(*hops: dict[str, Any]) -> Calls:
    return Calls(calls_made(pa.Table.from_pylist(list(hops), schema=SCHEMAS["hops"])))


def test_shares_and_matrix_count_outbound_hops_with_a_known_destination_once_each() -> None:
    got = _calls(
        _hop(("a", "c1"), ("a", "c1")),
        _hop(("a", "c1"), ("b", "c1"), destination_service="orders"),
        _hop(("b", "c2"), ("b", "c1")),
        _hop(("b", ""), ("b", "")),
        _hop(("a", "c1"), (None, "c1")),
        _hop(("a", "c1"), ("b", "c1"), direction="inbound"),
        _hop(("a", "c1"), ("b", "c1"), start_s=10.0),
    ).within(PHASE)
    assert (got.hops, got.same_zone_share, got.same_cell_share) == (4, 3 / 4, 2 / 3)
    assert got.same_zone_share_by_service == {"orders": 0.0, "web": 1.0}
    assert got.same_cell_share_by_service == {"orders": 1.0, "web": 0.5}
    assert got.matrix == {"a": {"a": 1, "b": 1}, "b": {"b": 2}}


def test_without_calls_there_is_no_share() -> None:
    got = _calls().within(PHASE)
    assert (got.hops, got.same_zone_share, got.same_cell_share, got.matrix) == (0, None, None, {})


PODS = pa.Table.from_pylist(
    [
        {"pod": "gateway-a-1", "service": "gateway", "zone": "a"},
        {"pod": "gateway-b-1", "service": "gateway", "zone": "b"},
        {"pod": "web-1", "service": "web", "zone": "a"},
    ],
    schema=SCHEMAS["pods"],
)


def _completeness(
    sent: dict[str, tuple[float, float]],
    killed: list[tuple[str, float]],
    lost: list[tuple[float, float]] | None = None,
) -> Completeness:
    """Of ok requests to the gateway of zone a, by id with the times at which they were sent and finished."""
    rows = [
        {"request_id": name, "sent_s": sent_s, "finished_s": finished_s, "outcome": "ok", "entry_zone": "a"}
        for name, (sent_s, finished_s) in sent.items()
    ]
    rows.append({"request_id": "failed", "sent_s": 2.9, "finished_s": 3.0, "outcome": "failed", "entry_zone": "a"})
    requests = pa.Table.from_pylist(rows, schema=SCHEMAS["requests"])
    hops = pa.Table.from_pylist([{"request_id": "seen"}], schema=SCHEMAS["hops"])
    return completeness(requests, hops, PODS, killed, lost or [])


def test_a_killed_gateway_explains_what_finished_while_its_lines_were_not_flushed() -> None:
    sent = {"seen": (0.9, 1.0), "lost": (2.9, 3.0), "unflushed": (4.8, 4.9), "underway": (4.98, 5.05)}
    # A proxy that waits for a core writes later than it should.
    sent |= {"long unflushed": (4.5, 4.6)}
    assert _completeness(sent, [("gateway-a-1", 5.0)]) == Completeness(without_hops=4, explained=3)
    assert _completeness(sent, []).lost == 4
    assert _completeness(sent, [], [(2.9, 4.95)]) == Completeness(without_hops=4, explained=3)


def test_answers_on_their_way_when_their_gateway_crashed_and_delivered_at_the_heal_are_explained_by_the_crash() -> None:
    """Clients 40 ms away, a node crash of 2 s: the gateway has answered, its answer waits on the cut link."""
    sent = {f"held {n}": (5.0 - 0.03 + n / 1e3, 7.02 + n / 1e3) for n in range(10)}
    assert _completeness(sent, [("gateway-a-1", 5.0)]) == Completeness(without_hops=10, explained=10)


def test_a_kill_does_not_explain_what_was_sent_after_it_nor_what_other_proxies_served() -> None:
    after = {"after": (5.01, 5.05)}
    assert _completeness(after, [("gateway-a-1", 5.0)]).explained == 0
    before = {"before": (4.98, 5.05)}
    assert _completeness(before, [("gateway-b-1", 5.0), ("web-1", 5.0)]).explained == 0
    assert _completeness(before, [("a pod of no table", 5.0)]).explained == 1
