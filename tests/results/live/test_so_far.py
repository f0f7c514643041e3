"""What is known of a run that goes on, held against what its report says in the end."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import orjson
import pytest

from testbed.results.show.html import counted
from testbed.results.show.live.calls import CallsSoFar
from testbed.results.show.live.course import CourseSoFar
from testbed.results.show.live.requests import RequestsSoFar
from testbed.results.show.live.tail import Tail
from testbed.results.tables.columns import Requests
from tests.results.live.feed import HEALED_S, LOST_S, PODS, T0_S, Played, live_run


def test_only_whole_lines_are_read_and_each_of_them_once(tmp_path: Path) -> None:
    path = tmp_path / "log"
    tail = Tail(path)
    assert tail.new() == []
    path.write_bytes(b'1\n{"a": 2}\n{"a"')
    assert tail.new() == [1, {"a": 2}]
    assert tail.new() == []
    with path.open("ab") as file:
        file.write(b": 3}\nnot json\n4\n")
    assert tail.new() == [{"a": 3}, 4]


def test_a_sample_is_the_newest_lines_and_says_for_how_many_they_stand(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"".join(b"%07d\n" % number for number in range(1_000_000, 1_001_000)))
    tail = Tail(path)
    lines, weight = tail.sample(805)
    assert lines == list(range(1_000_900, 1_001_000))
    assert weight == pytest.approx(10.0)
    assert tail.sample(805) == ([], 1.0)
    with path.open("ab") as file:
        file.write(b"7\n8\n")
    assert tail.sample(805) == ([7, 8], 1.0)


@pytest.mark.parametrize("number", [0, 1, 5000])
def test_the_course_so_far_is_that_of_the_report(number: int) -> None:
    chance = np.random.default_rng(number)
    intended_s, latency_ms = chance.uniform(0.0, 100.0, number), 10 ** chance.uniform(0.0, 3.0, number)
    outcome = chance.integers(0, 3, number)
    so_far = CourseSoFar(100.0)
    for part in np.array_split(np.arange(number), 7):
        so_far.add(intended_s[part], outcome[part], latency_ms[part])
    finished_s = intended_s + latency_ms / 1e3
    requests = Requests(intended_s, intended_s, intended_s, finished_s, latency_ms, outcome == 0, outcome == 1)
    final, got = counted.course(requests, 100.0), so_far.course(99.9)
    assert (got.width_s, len(got.bins)) == (final.width_s, len(final.bins))
    for ours, theirs in zip(got.bins, final.bins, strict=True):
        assert (ours.start_s, ours.sent, ours.ok, ours.failed, ours.unknown) == (
            *(theirs.start_s, theirs.sent, theirs.ok, theirs.failed, theirs.unknown),
        )
        own_ms = np.sort(latency_ms[(outcome == 0) & (intended_s // final.width_s == theirs.start_s // final.width_s)])
        for quantile_ms, share in ((ours.p50_ms, 0.5), (ours.p99_ms, 0.99)):
            if len(own_ms):
                assert quantile_ms == pytest.approx(own_ms[max(0, int(np.ceil(share * len(own_ms))) - 1)], rel=0.03)
            else:
                assert quantile_ms is None


def test_a_course_that_lasts_longer_than_was_to_be_expected_gets_wider_bins() -> None:
    so_far = CourseSoFar(float("inf"))
    for second in range(1000):
        so_far.add(np.array([second + 0.5]), np.array([0]), np.array([5.0]))
    course = so_far.course(1000.0)
    assert course.width_s * 240 >= 1000.0
    assert len(course.bins) <= 240
    assert sum(each.ok for each in course.bins) == 1000
    assert {each.sent for each in course.bins[:-1]} == {8}


def test_calls_are_those_of_the_sample_as_many_times_as_it_stands_for(tmp_path: Path) -> None:
    calls = CallsSoFar(tmp_path)
    calls.told(PODS)
    line = {"kind": "gateway", "pod": "gateway-east-a", "upstream_host": "10.1.0.1:15006", "status": 200}
    failed = {**line, "status": 503, "upstream_host": "10.0.0.1:15006"}
    others = [{**line, "kind": "inbound"}, {**line, "upstream_host": None}, {**line, "pod": "stranger"}, {"kind": "x"}]
    rows = [line, line, failed, *others] * 4000
    (tmp_path / "gateway-east-a.access.jsonl").write_bytes(b"\n".join(map(orjson.dumps, rows)) + b"\n")
    calls.take(5.0)
    (first, second), by_node = calls.recent()
    assert (first.source, first.destination, first.failed) == ("east-a", "east-b", 0)
    assert first.calls == pytest.approx(8000, rel=0.05)
    assert (second.destination, second.failed) == ("east-a", second.calls)
    assert by_node["east-b-1"] == first.calls
    calls.take(50.0)
    assert calls.recent() == ((), {})


def test_recovery_so_far_is_not_told_before_it_is_known_and_is_that_of_the_report_then(tmp_path: Path) -> None:
    played = Played(tmp_path)
    told: dict[int, str] = {}
    for second in range(40):
        played.second(second)
        pieces = played.live.pieces()
        told[second + 1] = pieces["recovery"]
    assert "Nothing has been broken yet" in told[int(LOST_S)]
    for second in (13, 14):
        assert "not yet" in told[second]
    # Requests that are lost at 14 s are known to be at 15 s.
    assert "recovered 2.00 s after the change" in told[17]
    assert "recovered 2.00 s after the change" in told[40]
    moved = "clients of east-a left the gateway of east-a for that of east-b after 2.00 s (told after 1.50 s)"
    assert moved in told[40]
    assert "40 errors until then" in told[40]
    assert "detect: 400 ms after the change" in told[40]
    assert "heal of lose-east-a" in told[int(HEALED_S) + 2]


def test_tiles_maps_and_events_show_what_is_known(tmp_path: Path) -> None:
    played = Played(tmp_path)
    before = played.live.pieces()
    assert "No request has finished yet" in before["course"]
    for second in range(20):
        played.second(second)
    pieces = played.live.pieces()
    assert re.findall(r"<dd>(.*?)</dd>", pieces["tiles"])[:5] == ["20 s", "1,200", "96.66 %", "0", "40"]
    assert "timed out" in pieces["errors"]
    assert "clients of east-a → east-b" in pieces["map"]
    assert "hit by the fault: east-a-1" in pieces["map"]
    assert pieces["events"].index("EntryChanged") < pieces["events"].index("NodeNotReady")
    assert orjson.loads(pieces["course-data"])["bins"][26][4] > 0
    assert "missing" in pieces
    assert not pieces["missing"].strip()


def test_the_records_of_clients_elsewhere_are_said_to_be_missing(tmp_path: Path) -> None:
    played = Played(tmp_path)
    for second in range(5):
        played.second(second)
    (tmp_path / "east-c.requests.jsonl").unlink()
    assert "Clients of east-c run on another machine" in played.live.pieces()["missing"]


def test_without_load_nothing_is_missing(tmp_path: Path) -> None:
    live = live_run(tmp_path)
    live.begins(T0_S, float("inf"))
    live.take(T0_S + 9.0)
    assert not live.pieces()["missing"].strip()
    live.load_starts(8.0)
    live.take(T0_S + 20.0)
    assert "Clients of east-a, east-b, east-c run on another machine" in live.pieces()["missing"]


def test_names_and_errors_with_markup_are_shown_and_not_run(tmp_path: Path) -> None:
    played = Played(tmp_path)
    played.live.applied("<script>alert(1)</script>", 1.0, ("<img src=x>",), instant=True)
    played.live.doing("<b>x</b>", "running")
    played.second(0)
    played.second(1)
    pieces = played.live.pieces()
    assert all("<script" not in piece and "<img" not in piece for piece in pieces.values())
    # This one is put in as text.
    assert pieces["doing"] == "<b>x</b>"


def test_where_directed_clients_entered_is_known_once_they_have_their_answer(tmp_path: Path) -> None:
    requests = RequestsSoFar(tmp_path, ["a", "b"], t0_s=100.0, expected_s=10.0)
    sent = {"e": "s", "id": "1", "t": "GET", "u": "/", "n": "/", "i": 101.0, "s": 101.0, "z": None}
    finished = {"e": "f", "id": "1", "f": 101.5, "c": 200, "o": "ok", "m": None, "z": "b", "k": "rz02", "v": 1, "q": 1}
    lost = {"e": "f", "id": "2", "f": 102.0, "c": None, "o": "unknown", "m": "router: timed out", "z": None, "k": None}
    lines = (sent, {**sent, "id": "2"}, {**finished, "r": 3.0}, lost)
    (tmp_path / "a.requests.jsonl").write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    requests.take(2.5)
    _, origin, entry, cell = requests.kept([])
    assert [numbers.tolist() for numbers, _ in (origin, entry, cell)] == [[0, 0], [1, -1], [0, -1]]
    assert cell[1] == ["rz02"]
    assert requests.recent_entries() == {("a", "b"): (1, 0)}
    assert requests.errors == {("unknown", "router: timed out"): 1}
