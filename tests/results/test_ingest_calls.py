"""The lines of proxies and workloads about calls -> `hops` and `attempts`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest

from testbed.control.cells.partitions import partition_of as cells_partition_of
from testbed.control.views import kube_proxy
from testbed.control.views.envoy import access_log
from testbed.objects.cells import PartitionRule
from testbed.results.tables import lines as lines_module
from testbed.results.tables.ingest_calls import Connections, PartitionOf, call_tables, ingest_access_log
from testbed.results.tables.lines import IngestCounts
from testbed.results.tables.pods import PodIdentity, Pods
from testbed.results.tables.schemas import Clock
from testbed.results.tables.writer import read_table

CLOCK = Clock(t0_monotonic_s=100.0, epoch_minus_monotonic_s=1_700_000_000.0)
WEB = PodIdentity("web-1", "web", "n1", "east-a", "east", "c1", "127.20.1.3", -5.0)
ORDERS = PodIdentity("orders-1", "orders", "n2", "east-b", "east", "c2", "127.20.2.3", -5.0)
PODS = Pods([WEB, ORDERS])


def _write(path: Path, lines: list[Any]) -> Path:
    path.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    return path


def _call(kind: str, **fields: Any) -> dict[str, Any]:
    return {
        access_log.KIND: kind,
        access_log.POD: "web-1",
        access_log.REQUEST_ID: "r1",
        access_log.START: "1700000101.250000",
        access_log.DURATION_US: 1500,
        access_log.DURATION_MS: 2,
        access_log.PEER: None,
        access_log.UPSTREAM_HOST: "127.20.2.3:15006",
        access_log.UPSTREAM_CLUSTER: "orders",
        access_log.STATUS: 200,
        access_log.FLAGS: "-",
        access_log.ATTEMPTS: 1,
        access_log.BYTES_RECEIVED: 10,
        access_log.BYTES_SENT: 90,
        access_log.REQUEST_BYTES: 310,
        access_log.RESPONSE_BYTES: 390,
        **fields,
    }


def _try(**fields: Any) -> dict[str, Any]:
    line = _call(access_log.ATTEMPT, **{access_log.STATUS: 0, **fields})
    del line[access_log.DURATION_US]
    return line


def _hops(
    folder: Path, lines: list[Any], connections: Connections | None = None, partition_of: PartitionOf | None = None
) -> tuple[IngestCounts, list[dict[str, Any]], list[dict[str, Any]]]:
    path = _write(folder / "access.log", lines)
    with call_tables(folder, "web-1") as tables:
        counts = ingest_access_log(path, PODS, CLOCK, tables, connections, partition_of)
    return counts, read_table(folder, "hops").to_pylist(), read_table(folder, "attempts").to_pylist()


def test_calls_are_hops_between_known_pods(tmp_path: Path) -> None:
    lines = [
        _call(access_log.OUTBOUND),
        _call(access_log.GATEWAY),
        _call(access_log.INBOUND, peer="orders-1", upstream_host="127.20.1.3:8080"),
    ]
    counts, rows, _ = _hops(tmp_path, lines)
    assert counts == IngestCounts(lines=3, rows=3)
    ends = [(row["direction"], row["source_pod"], row["destination_pod"]) for row in rows]
    assert ends == [("outbound", "web-1", "orders-1")] * 2 + [("inbound", "orders-1", "web-1")]
    outbound = rows[0]
    assert (outbound["start_s"], outbound["duration_ms"]) == (1.25, 1.5)
    assert [(row["request_bytes"], row["response_bytes"], row["bytes"]) for row in rows] == [(310, 390, 100)] * 3
    assert (outbound["source_zone"], outbound["destination_zone"]) == ("east-a", "east-b")
    assert (outbound["destination_service"], outbound["destination_node"]) == ("orders", "n2")
    assert (outbound["destination_region"], outbound["destination_cell"], outbound["flags"]) == ("east", "c2", None)


@pytest.mark.parametrize("host", [None, "-", "127.20.9.9:15006"])
def test_of_a_call_without_a_known_host_the_service_is_known(tmp_path: Path, host: str | None) -> None:
    lines = [_call(access_log.OUTBOUND, upstream_host=host, flags="UH", status=503, attempts=None)]
    _, (row,), _ = _hops(tmp_path, lines)
    ends = {name.removeprefix("destination_"): value for name, value in row.items() if name.startswith("destination_")}
    assert ends == {"pod": None, "service": "orders", "node": None, "zone": None, "region": None, "cell": None}
    assert row["flags"] == "UH"


def test_a_call_that_no_route_took_has_no_destination(tmp_path: Path) -> None:
    _, (row,), _ = _hops(tmp_path, [_call(access_log.OUTBOUND, upstream_host=None, upstream_cluster=None, status=502)])
    assert (row["destination_service"], row["status"]) == (None, 502)


def test_a_connection_is_no_hop_and_has_a_table_of_its_own(tmp_path: Path) -> None:
    line = {
        access_log.KIND: access_log.CONNECTION,
        access_log.POD: "web-1",
        access_log.START: "1700000101.250000",
        access_log.DURATION_MS: 42,
        access_log.UPSTREAM_HOST: "127.20.2.3:15006",
        access_log.UPSTREAM_CLUSTER: "outbound|6379||orders",
        access_log.FLAGS: "-",
        access_log.BYTES_RECEIVED: 10,
        access_log.BYTES_SENT: 90,
    }
    nowhere = {**line, access_log.UPSTREAM_HOST: None, access_log.FLAGS: "UH", access_log.BYTES_SENT: 0}
    counts, hops, attempts = _hops(tmp_path, [line, nowhere])
    assert (counts, hops, attempts) == (IngestCounts(lines=2, rows=2), [], [])
    found = [
        (row["source_pod"], row["destination_pod"], row["destination_service"], row["flags"], row["sent_bytes"])
        for row in read_table(tmp_path, "connections").to_pylist()
    ]
    assert found == [("web-1", "orders-1", "orders", None, 10), ("web-1", None, "orders", "UH", 10)]
    first = read_table(tmp_path, "connections").to_pylist()[0]
    assert (first["start_s"], first["duration_ms"], first["received_bytes"]) == (1.25, 42.0, 90)


def test_a_call_whose_caller_left_took_until_then(tmp_path: Path) -> None:
    line = _call(access_log.OUTBOUND, duration_us=None, duration_ms=301, flags="DC", status=0)
    _, (row,), _ = _hops(tmp_path, [line])
    assert (row["duration_ms"], row["status"], row["flags"]) == (301.0, None, "DC")


def test_a_failed_try_is_an_attempt_and_no_hop(tmp_path: Path) -> None:
    line = _try(flags="UF", duration_ms=250)
    _, rows, attempts = _hops(tmp_path, [line])
    assert rows == []
    assert [(row["destination_pod"], row["duration_ms"], row["flags"]) for row in attempts] == [("orders-1", 250, "UF")]


def test_a_line_belongs_to_the_pod_that_it_names(tmp_path: Path) -> None:
    lines = [_call(access_log.OUTBOUND, pod="orders-1", upstream_host="127.20.1.3:15006"), _call(access_log.OUTBOUND)]
    _, rows, _ = _hops(tmp_path, lines)
    assert [(row["source_pod"], row["destination_pod"]) for row in rows] == [
        ("orders-1", "web-1"),
        ("web-1", "orders-1"),
    ]


def test_an_attempt_has_a_status_where_there_was_an_answer(tmp_path: Path) -> None:
    lines = [_try(duration_ms=5, status=status) for status in (503, 0, None)]
    _, _, attempts = _hops(tmp_path, lines)
    assert [row["status"] for row in attempts] == [503, None, None]


def test_access_log_lines_of_another_form_are_counted(tmp_path: Path) -> None:
    lines = [[], {}, {"kind": "tea"}, _call(access_log.OUTBOUND, start="noon"), _call(access_log.OUTBOUND)]
    counts, rows, _ = _hops(tmp_path, lines)
    assert (counts.unreadable, len(rows)) == (4, 1)


@pytest.mark.parametrize("block_bytes", [1, 1 << 20], ids=["other blocks", "one block"])
@pytest.mark.parametrize(
    "strange",
    [
        b"null\n",
        b"\n",
        b"\0\0\0\n",
        b"text\n",
        b'{"pod":"\xff"}\n',
        b'{"pod":"web-1","start":"17',
        b"{}null\n",
        b"{}{}\n",
    ],
)
def test_a_line_of_strange_bytes_is_counted_and_costs_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strange: bytes, block_bytes: int
) -> None:
    monkeypatch.setattr(lines_module, "_BLOCK_BYTES", block_bytes)
    path = _write(tmp_path / "access.log", [_call(access_log.OUTBOUND), _call(access_log.GATEWAY)])
    whole = path.read_bytes()
    path.write_bytes(strange + whole if strange.endswith(b"\n") else whole + strange)
    with call_tables(tmp_path, "web-1") as tables:
        counts = ingest_access_log(path, PODS, CLOCK, tables)
    assert counts == IngestCounts(lines=3, rows=2, unreadable=1)


def test_a_line_longer_than_what_is_parsed_at_once_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines_module, "_AT_ONCE_BYTES", 10)
    counts, _, _ = _hops(tmp_path, [_call(access_log.OUTBOUND, partition="7" * number) for number in (1, 9, 5000)])
    assert counts == IngestCounts(lines=3, rows=3)


# --- what ended a try ----------------------------------------------------------------------------------------------


def _ended_call(flags: str, duration_ms: float = 3000, **fields: Any) -> dict[str, Any]:
    return _call(access_log.OUTBOUND, duration_us=None, duration_ms=duration_ms, flags=flags, status=0, **fields)


@pytest.mark.parametrize("block_bytes", [1, 1 << 20], ids=["other blocks", "one block"])
@pytest.mark.parametrize(("flags", "call_first"), [("UT", False), ("DC", True)])
def test_a_try_that_its_call_ended_has_the_flags_of_the_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, call_first: bool, block_bytes: int
) -> None:
    monkeypatch.setattr(lines_module, "_BLOCK_BYTES", block_bytes)
    call, last_try = _ended_call(flags), _try(duration_ms=2999)
    strangers = [_ended_call("UF", request_id="r0"), _ended_call("UF", upstream_host="127.20.9.9:15006")]
    ordered = [call, last_try] if call_first else [last_try, call]
    _, hops, attempts = _hops(tmp_path, [strangers[0], *ordered, strangers[1]])
    assert [(row["duration_ms"], row["status"], row["flags"]) for row in attempts] == [(2999.0, None, flags)]
    assert len(hops) == 3


def test_of_two_calls_of_one_request_to_one_host_the_one_that_ended_with_the_try_explains_it(tmp_path: Path) -> None:
    first, second = "1700000101.000000", "1700000102.000000"
    lines = [
        _try(start=first, duration_ms=500),
        _ended_call("UT", 500, start=first),
        _ended_call("DC", 900, start=second),
        _try(start=second, duration_ms=900),
    ]
    _, _, attempts = _hops(tmp_path, lines)
    assert [row["flags"] for row in attempts] == ["UT", "DC"]


def test_a_try_with_an_answer_or_with_flags_of_its_own_keeps_them(tmp_path: Path) -> None:
    lines = [_try(status=503, duration_ms=1), _try(flags="UF", duration_ms=2), _ended_call("UT", 3)]
    _, _, attempts = _hops(tmp_path, lines)
    assert [(row["status"], row["flags"]) for row in attempts] == [(503, None), (None, "UF")]


def test_a_try_whose_call_was_not_logged_any_more_is_still_an_attempt(tmp_path: Path) -> None:
    _, _, attempts = _hops(tmp_path, [_try(duration_ms=700)])
    assert [(row["destination_zone"], row["duration_ms"], row["flags"]) for row in attempts] == [
        ("east-b", 700.0, None)
    ]


# --- without a mesh ------------------------------------------------------------------------------------------------

CALLER = "127.20.1.3:40001"


def _led(at_epoch_s: str, endpoint: str | None) -> dict[str, Any]:
    return {
        kube_proxy.CONNECTED: at_epoch_s,
        kube_proxy.CALLER: CALLER,
        kube_proxy.SERVICE: "orders",
        kube_proxy.ENDPOINT: endpoint,
    }


def _own_call(kind: str = access_log.OUTBOUND, **fields: Any) -> dict[str, Any]:
    """A workload's own line: it began at 1.25 s, and knows its end of the connection, if any, but not the other."""
    return _call(kind, **{access_log.UPSTREAM_HOST: None, access_log.CALLER: CALLER, **fields})


def test_a_call_without_a_mesh_went_where_kube_proxy_had_led_its_connection(tmp_path: Path) -> None:
    path = _write(
        tmp_path / "n1.connections",
        [_led("1700000090.0", "127.20.1.3:8080"), _led("1700000101.2501", "127.20.2.3:8080"), [], {"caller": CALLER}],
    )
    given_up = {"duration_us": 1_000_000, "duration_ms": 1000.0, "status": None, "flags": "DC"}
    lines = [
        _own_call(start="1700000100.000000"),
        _own_call(**given_up),
        _own_call(access_log.ATTEMPT, **given_up),
        _own_call(caller=None),
    ]
    _, hops, attempts = _hops(tmp_path, lines, Connections(path))
    # The port was used again: a connection made while a call was under way is that of the call.
    assert [row["destination_pod"] for row in hops] == ["web-1", "orders-1", None]
    assert {row["destination_service"] for row in hops[1:]} == {"orders"}
    assert [(row["destination_zone"], row["duration_ms"], row["flags"]) for row in attempts] == [
        ("east-b", 1000.0, "DC")
    ]


def test_a_connection_that_found_no_endpoint_says_so(tmp_path: Path) -> None:
    path = _write(tmp_path / "n1.connections", [_led("1700000101.2501", None)])
    lines = [_own_call(access_log.ATTEMPT, status=None, flags="UC")]
    _, _, (row,) = _hops(tmp_path, lines, Connections(path))
    assert (row["destination_pod"], row["destination_service"], row["flags"]) == (None, "orders", "UH")


def test_an_address_belongs_to_the_pod_that_had_it_then() -> None:
    later = PodIdentity("web-2", "web", "n1", "east-a", "east", "c1", WEB.ip, 20.0)
    pods = Pods([later, WEB])
    found = [pods.at(f"{WEB.ip}:15006", t_s) for t_s in (-9.0, 19.0, 21.0)]
    assert [None if index is None else pods.identities[index].pod for index in found] == ["web-1", "web-1", "web-2"]


CELLS = {
    access_log.PARTITION: "77",
    access_log.OWNER_CELL: "c2",
    access_log.MAP_VERSION: 3,
    access_log.ROUTE: access_log.FIRST_HIT,
}


def test_a_call_says_for_which_partition_it_was_whose_that_is_and_why_it_went_there(tmp_path: Path) -> None:
    names = ("partition", "owner_cell", "map_version", "route")
    unkeyed = {access_log.PARTITION: None, access_log.OWNER_CELL: None, access_log.ROUTE: access_log.GLOBAL}
    lines = [
        _call(access_log.GATEWAY, **CELLS),
        _call(access_log.OUTBOUND, **{**CELLS, **unkeyed}),
        _call(access_log.OUTBOUND),
    ]
    _, rows, _ = _hops(tmp_path, lines)
    assert [tuple(row[name] for name in names) for row in rows] == [
        ("77", "c2", 3, "first-hit"),
        (None, None, 3, "global"),
        (None, None, None, None),
    ]


def test_of_a_proxy_that_matched_the_key_itself_the_partition_is_made_by_the_rule(tmp_path: Path) -> None:
    matched = {name: value for name, value in CELLS.items() if name != access_log.PARTITION}
    lines = [
        _call(access_log.GATEWAY, **CELLS),
        *(_call(access_log.OUTBOUND, **matched, partition_key=key) for key in ("1234", "1299", "1234", "alice", None)),
    ]
    rule = partial(cells_partition_of, PartitionRule("digits", digits=(3, 2)), 100)
    _, rows, _ = _hops(tmp_path, lines, partition_of=rule)
    assert [row["partition"] for row in rows] == ["77", "23", "29", "23", None, None]


def test_a_forward_came_in_and_went_out_again(tmp_path: Path) -> None:
    line = _call(access_log.INBOUND, **CELLS, peer="orders-1", upstream_cluster="outbound|80|c2|orders")
    counts, rows, _ = _hops(tmp_path, [line])
    assert counts == IngestCounts(lines=1, rows=2)
    assert [(row["direction"], row["source_pod"], row["destination_pod"], row["route"]) for row in rows] == [
        ("inbound", "orders-1", "web-1", "first-hit"),
        ("outbound", "web-1", "orders-1", "first-hit"),
    ]
