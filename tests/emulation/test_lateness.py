"""An event loop that is held up is noticed, once, by whoever watches it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from testbed.emulation.processes import lateness
from testbed.emulation.processes.lateness import NOTED_S, LoopWatch
from testbed.objects.timings import Timings
from testbed.objects.workloads import Probe
from tests.emulation.loopback import eventually

HELD_UP_S = 5 * NOTED_S


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lateness, "PERIOD_S", 0.02)


@pytest.fixture
def noted() -> list[tuple[float, float]]:
    return []


@pytest.fixture
def watch(noted: list[tuple[float, float]]) -> Iterator[LoopWatch]:
    watch = LoopWatch(lambda due_s, late_s: noted.append((due_s, late_s)))
    yield watch
    watch.stop()


async def test_a_loop_that_is_held_up_is_noticed_with_the_moment_and_for_how_long(
    watch: LoopWatch, noted: list[tuple[float, float]]
) -> None:
    watch.start()
    watch.start()
    began_s = time.monotonic()
    time.sleep(HELD_UP_S)
    ended_s = time.monotonic()
    await eventually(lambda: noted)
    due_s, late_s = noted[0]
    assert began_s - lateness.PERIOD_S <= due_s <= ended_s
    assert late_s >= ended_s - due_s


async def test_timers_that_were_held_up_together_are_one_delay(
    watch: LoopWatch, noted: list[tuple[float, float]]
) -> None:
    now_s = time.monotonic()
    for ago_s in (1.0, 0.8, 0.5):
        watch.woke(now_s - ago_s)
    watch.woke(now_s - NOTED_S / 2)
    assert [due_s for due_s, _ in noted] == [now_s - 1.0]
    assert noted[0][1] >= 1.0


def test_others_wait_as_long_as_it_takes_to_be_taken_for_dead() -> None:
    assert Timings().lease_patience_s == 30.0
    assert Timings().entry_patience_s == 24.0
    assert Probe(period_s=0.5, timeout_s=0.25).patience_s == 1.25
    assert Probe(timeout_s=2.0, failure_threshold=1).patience_s == 2.0
