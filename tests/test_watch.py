"""`--watch`: what a session tells is on its page, and however it ends, the page says so."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import orjson
import pytest

from testbed.cli.watch import Watch
from testbed.emulation.actors.reports import Recorded
from testbed.emulation.driver.events import (
    Broken,
    ConnectingToRay,
    FaultApplied,
    FaultHealed,
    LoadStarted,
    Ready,
    RecordsCollected,
    SessionEvent,
)
from testbed.faults.impact import Impact
from testbed.scenario import Scenario, load_scenario

SMALL = Path(__file__).parent / "emulation" / "scenarios" / "small.yaml"
PATIENCE_S = 30.0
EVERY_S = 0.1


@pytest.fixture(scope="module")
def scenario() -> Scenario:
    return load_scenario(SMALL)


def pieces(watch: Watch) -> Iterator[dict[str, str]]:
    """All that the page holds, again with everything that is new; ends with the page."""
    host, _, path = watch.url.removeprefix("http://").partition("/")
    held: dict[str, str] = {}
    with closing(http.client.HTTPConnection(host, timeout=PATIENCE_S)) as connection:
        connection.request("GET", f"/{path}events")
        answer = connection.getresponse()
        while line := answer.readline():
            if line == b"event: end\n":
                return
            if line.startswith(b"data:"):
                held |= orjson.loads(line[5:])
                yield held


def until(shown: Iterator[dict[str, str]], piece: str, text: str) -> None:
    for held in shown:
        if text in held.get(piece, ""):
            return
    raise AssertionError(f"{piece} never had {text!r}")


def played(watch: Watch, *events: SessionEvent) -> None:
    for event in events:
        watch.hear(event)


def test_what_a_session_tells_is_on_its_page(scenario: Scenario, tmp_path: Path) -> None:
    defects: list[Exception] = []
    with Watch(scenario, tmp_path, defects.append, every_s=EVERY_S) as watch:
        shown = pieces(watch)
        played(watch, ConnectingToRay(None))
        until(shown, "doing", "connecting to Ray")
        now_s = time.monotonic()
        happened = Recorded(now_s + 0.4, "control-plane", "Node", "east-a-1", "NodeNotReady", {"why": "<b>"})
        played(
            watch,
            Ready(3.0),
            LoadStarted(now_s, 20.0),
            FaultApplied("cut", now_s, Impact(now_s + 0.1, victims=("east-a-1",)), True),
            RecordsCollected([happened], ()),
        )
        until(shown, "recovery", "cut")
        until(shown, "events", "NodeNotReady")
        until(shown, "events", "{&#34;why&#34;:&#34;&lt;b&gt;&#34;}")
        played(watch, FaultHealed("cut", now_s, now_s + 0.5))
        until(shown, "recovery", "heal of cut")
        watch.ended("passed", tmp_path / "report.html")
    *_, last = shown
    assert "passed" in last["state"]
    assert last["doing"] == f"the run has ended; its report is {tmp_path / 'report.html'}"
    assert defects == []


def test_a_run_that_ends_without_a_result_says_why(scenario: Scenario, tmp_path: Path) -> None:
    watch = Watch(scenario, tmp_path, lambda defect: None, every_s=EVERY_S)
    shown = pieces(watch)

    def run() -> None:
        with watch:
            played(watch, Broken("a node is gone"))
            until(shown, "doing", "a node is gone")
            raise RuntimeError("no addresses")

    with pytest.raises(RuntimeError):
        run()
    *_, last = shown
    assert last["doing"] == "ended without a result: no addresses"
    with pytest.raises(ConnectionRefusedError):
        next(pieces(watch))


def test_a_page_that_fails_says_so_and_takes_nothing_with_it(scenario: Scenario, tmp_path: Path) -> None:
    defects: list[Exception] = []
    with Watch(scenario, tmp_path, defects.append, every_s=EVERY_S) as watch:
        shown = pieces(watch)
        played(watch, FaultApplied("cut", 0.0, None, True))  # type: ignore[arg-type]
        until(shown, "doing", "this page has failed; the run goes on")
        played(watch, Ready(1.0))
        watch.ended("passed", tmp_path / "report.html")
    assert len(defects) == 1
