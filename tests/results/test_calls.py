from __future__ import annotations

from typing import Any

import pyarrow as pa

from testbed.results.calls import Calls, Completeness, completeness
from testbed.results.phases import Phase
from testbed.results.tables import SCHEMAS

PHASE = Phase("steady", 0.0, 10.0)


def _hop(source: tuple[str | None, str], destination: tuple[str | None, str], **fields: Any) -> dict[str, Any]:
    ends = {"source_zone": source[0], "source_cell": source[1]}
    ends |= {"destination_zone": destination[0], "destination_cell": destination[1]}
    return {"direction": "outbound", "start_s": 1.0, "destination_service": "web", **ends, **fields}


def _calls(*hops: dict[str, Any]) -> Calls:
    return Calls(pa.Table.from_pylist(list(hops), schema=SCHEMAS["hops"]))


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
    assert got.call_matrix == {"a": {"a": 1, "b": 1}, "b": {"b": 2}}


def test_without_calls_there_is_no_share() -> None:
    got = _calls().within(PHASE)
    assert (got.hops, got.same_zone_share, got.same_cell_share, got.call_matrix) == (0, None, None, {})


def test_a_killed_proxy_explains_what_finished_while_its_lines_were_not_flushed() -> None:
    finished_s = {"seen": 1.0, "lost": 3.0, "unflushed": 4.9, "underway": 5.05}
    rows = [{"request_id": name, "finished_s": t_s, "outcome": "ok"} for name, t_s in finished_s.items()]
    rows.append({"request_id": "failed", "finished_s": 3.0, "outcome": "failed"})
    requests = pa.Table.from_pylist(rows, schema=SCHEMAS["requests"])
    hops = pa.Table.from_pylist([{"request_id": "seen"}], schema=SCHEMAS["hops"])
    assert completeness(requests, hops, [("web-1", 5.0)]) == Completeness(without_hops=3, explained=2)
    assert completeness(requests, hops, []).lost == 3
    assert completeness(requests, hops, [], [(2.9, 4.95)]) == Completeness(without_hops=3, explained=3)
