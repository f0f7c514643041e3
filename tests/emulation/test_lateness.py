"""An event loop that is held up is noticed, once, by whoever watches it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.emulation.actors import lateness
from testbed.emulation.actors.lateness import NOTED_S, LoopWatch
from testbed.emulation.actors.master import Master
from testbed.emulation.actors.network_card import NetworkCard
from testbed.network.addresses.loopback import LoopbackNetwork
from testbed.objects.cluster import ClusterSpec
from testbed.objects.places import Locality, Place, Topology
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


async def test_a_master_that_is_held_up_records_it_with_how_long_others_wait() -> None:
    place = Place("control-plane", Locality("east", "east-a"), "control-plane")
    topology = Topology((place,))
    card = NetworkCard(place.name, topology, LoopbackNetwork(1, [place.name]), Path("nowhere"), 1)
    master = Master(ClusterSpec(timings=Timings(lease_renew_s=0.5, lease_grace_s=2.0)), topology, card, [])
    await master.connect({}, {})
    await asyncio.sleep(0)
    time.sleep(HELD_UP_S)
    recorded = []

    async def collected() -> None:
        while not recorded:
            recorded.extend(event for event in await master.records() if event.reason == "Late")
            await asyncio.sleep(0.01)

    await asyncio.wait_for(collected(), 30)
    assert (recorded[0].kind, recorded[0].object) == ("Process", "the control plane")
    assert recorded[0].details["late_s"] >= NOTED_S
    assert recorded[0].details["patience_s"] == 1.5
    master.loop_watch.stop()


def test_others_wait_as_long_as_it_takes_to_be_taken_for_dead() -> None:
    assert Timings().lease_patience_s == 30.0
    assert Timings().entry_patience_s == 24.0
    assert Probe(period_s=0.5, timeout_s=0.25).patience_s == 1.25
    assert Probe(timeout_s=2.0, failure_threshold=1).patience_s == 2.0
