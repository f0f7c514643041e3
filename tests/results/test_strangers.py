from __future__ import annotations

from typing import Any

import pyarrow as pa

from testbed.results.measure.strangers import without_strangers
from testbed.results.tables.schemas import SCHEMAS

REQUESTS = pa.Table.from_pylist([{"request_id": "ours"}], schema=SCHEMAS["requests"])


def hop(request_id: str | None, source: str | None, **fields: Any) -> dict[str, Any]:
    place = {} if source is None else {"source_service": source, "source_zone": "a"}
    return {"request_id": request_id, "direction": "outbound", "start_s": 1.0, **place, **fields}


def table(*hops: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(hops), schema=SCHEMAS["hops"])


def test_all_calls_of_a_request_that_no_client_sent_are_taken_out() -> None:
    found = without_strangers(
        REQUESTS,
        table(
            hop("ours", "gateway"),
            hop("ours", "web"),
            hop("at-the-gateway", "gateway"),
            hop("at-the-gateway", "gateway", direction="inbound"),
            hop("at-the-gateway", "web"),
            hop("at-a-pod", None, direction="inbound"),
            hop("at-a-pod", "web"),
        ),
    )
    assert (found.requests, found.hops) == (2, 5)
    assert found.own["request_id"].to_pylist() == ["ours", "ours"]


def test_calls_that_a_program_begins_by_itself_are_the_runs() -> None:
    own = [hop("begun-inside", "web"), hop("begun-inside", "web", direction="inbound"), hop(None, "web")]
    found = without_strangers(REQUESTS, table(hop("ours", "gateway"), *own))
    assert (found.requests, found.hops, len(found.own)) == (0, 0, 4)


def test_requests_whose_clients_went_with_their_machine_are_no_strangers() -> None:
    hops = table(hop("unrecorded", "gateway", start_s=5.0), hop("later", "gateway", start_s=9.0))
    found = without_strangers(REQUESTS, hops, [(4.5, 6.0)])
    assert (found.requests, found.own["request_id"].to_pylist()) == (1, ["unrecorded"])


def test_a_run_without_hops_has_no_strangers() -> None:
    found = without_strangers(REQUESTS, table())
    assert (found.requests, found.hops, len(found.own)) == (0, 0, 0)
