"""A session with actors that are played in this process: what it asks of them, tells, and keeps when they fail."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from testbed.control.api_server import Refused
from testbed.control.waiting import Waiting
from testbed.emulation.actors import vigil
from testbed.emulation.actors.load_generator import LoadGeneratorFailed
from testbed.emulation.actors.locust_process import LoadProgress
from testbed.emulation.driver.cluster import BringUpFailed
from testbed.emulation.driver.disk import DiskFull, RunDisk
from testbed.emulation.driver.events import (
    Applied,
    BringingUp,
    Broken,
    ComingUp,
    Deleted,
    FaultApplied,
    FaultHealed,
    LoadEnded,
    LoadFailed,
    LoadReported,
    LoadStarted,
    LoadStopping,
    MachinesLost,
    Ready,
    RecordsCollected,
    SessionEvent,
)
from testbed.emulation.driver.session import FaultRefused, Session
from testbed.faults.effects import KillPods
from testbed.faults.nodes import NodeCrash
from testbed.objects.core import Service
from testbed.scenario import Scenario, load_scenario
from tests.emulation.loopback import eventually
from tests.emulation.played import Stage, stage

__all__ = ["stage"]

SCENARIO = load_scenario(Path(__file__).parent / "scenarios" / "small.yaml", [])
NODE = "east-a-1"
CRASH = NodeCrash(NODE).effects(SCENARIO.topology)


class Audience:
    def __init__(self) -> None:
        self.heard: list[SessionEvent] = []

    def kinds(self) -> list[type]:
        """What was heard, without what is told again and again."""
        return [type(event) for event in self.heard if not isinstance(event, ComingUp)]

    def broken(self) -> list[str]:
        return [event.why for event in self.heard if isinstance(event, Broken)]


@pytest.fixture
def audience() -> Audience:
    return Audience()


@contextlib.asynccontextmanager
async def opened(stage: Stage, audience: Audience, scenario: Scenario = SCENARIO) -> AsyncIterator[Session]:
    disk = RunDisk(stage.folders.logs.parent, scenario)
    surveyed, tell = stage.surveyed(scenario), audience.heard.append
    async with Session.opened(scenario, surveyed, stage.folders, disk, tell, time.monotonic()) as session:
        yield session


async def test_a_session_is_brought_up_loaded_changed_broken_healed_and_taken_down_as_its_user_asks(
    stage: Stage, audience: Audience
) -> None:
    async with opened(stage, audience) as session:
        await session.up()
        await session.inject("crash", CRASH)
        await session.apply([Service("other")])
        await session.prepare_load()
        await session.start_load(time.monotonic())
        assert await session.observe()
        await session.heal("crash")
        assert not session.load_is_over
        stage.send_all()
        assert await session.observe()
        assert session.load_is_over
        await session.delete(Service, "other")
        await session.stop_load()
        await session.down()
    assert audience.kinds() == [
        BringingUp,
        Ready,
        FaultApplied,
        Applied,
        LoadStarted,
        RecordsCollected,
        LoadReported,
        FaultHealed,
        RecordsCollected,
        LoadReported,
        Deleted,
        LoadStopping,
        LoadEnded,
    ]
    assert stage.methods("master")[0] == "connect"
    assert [asked for asked in stage.methods(NODE) if asked != "records"] == [
        "boot",
        "impose",
        "cut_power",
        "lift",
        "restore_power",
        "shut_down",
    ]
    assert [asked for asked in stage.methods("clients/east-a") if asked in ("prepare", "start", "stop")] == [
        "prepare",
        "start",
        "stop",
    ]


async def test_who_watches_a_bring_up_hears_how_far_it_is(stage: Stage, audience: Audience) -> None:
    stage.waiting_for = (Waiting("pod", "web-1", "it is not ready"),)
    async with opened(stage, audience) as session:
        coming_up = asyncio.create_task(session.up())
        await eventually(lambda: _waiting(audience))
        stage.waiting_for = ()
        await coming_up
    (first, *_) = (event for event in audience.heard if isinstance(event, ComingUp))
    assert (first.answering, first.actors, first.readiness) == (0, 3, None)
    assert audience.kinds() == [BringingUp, Ready]


def _waiting(audience: Audience) -> bool:
    return any(isinstance(event, ComingUp) and event.readiness is not None for event in audience.heard)


async def test_a_bring_up_without_progress_fails_by_what_is_missing(stage: Stage, audience: Audience) -> None:
    stage.waiting_for = (Waiting("pod", "web-1", "it is not ready"),)
    with pytest.raises(BringUpFailed, match=r"1 of 2 pods are ready, and nothing changed for 1 s.*\n  pod web-1: it"):
        async with opened(stage, audience, replace(SCENARIO, ready_timeout_s=1.0)) as session:
            await session.up()
    stage.hangs.add("boot")
    with pytest.raises(BringUpFailed, match=r"the cluster is not up.*\n  the agent of node east-a-1\n"):
        async with opened(stage, audience, replace(SCENARIO, ready_timeout_s=1.0)) as session:
            await session.up()


async def test_what_goes_wrong_in_an_actor_ends_a_bring_up_by_name(stage: Stage, audience: Audience) -> None:
    stage.waiting_for = (Waiting("pod", "web-1", "it is not ready"),)
    async with opened(stage, audience) as session:
        coming_up = asyncio.create_task(session.up())
        await eventually(lambda: _waiting(audience))
        stage.actors[NODE].report_defect("a defect of the agent of node east-a-1: KeyError: 'web-9'")
        with pytest.raises(BringUpFailed, match="KeyError: 'web-9'"):
            await coming_up


async def test_a_full_disk_ends_a_bring_up(stage: Stage, audience: Audience, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RunDisk, "_free_bytes", lambda _: 1000)
    async with opened(stage, audience) as session:
        with pytest.raises(DiskFull):
            await session.up()


async def test_a_load_that_cannot_be_is_refused_with_its_reason(stage: Stage, audience: Audience) -> None:
    stage.why_no_load = "mine.py:1: no such module"
    async with opened(stage, audience) as session:
        await session.up()
        with pytest.raises(LoadGeneratorFailed, match=r"mine\.py:1: no such module"):
            await session.prepare_load()


async def test_load_that_fails_is_told_and_there_is_no_use_in_going_on(stage: Stage, audience: Audience) -> None:
    async with opened(stage, audience) as session:
        await session.up()
        stage.progress = LoadProgress(error="the load generator of east-a ended with exit code 3")
        assert not await session.observe()
    assert audience.kinds()[-1] == LoadFailed
    assert audience.broken() == []


async def test_a_machine_whose_records_do_not_come_home_breaks_the_session(stage: Stage, audience: Audience) -> None:
    async with opened(stage, audience) as session:
        await session.up()
        session.fleet.driver.failure = "the process of the testbed died"
        assert not await session.observe()
        assert not await session.observe()
    assert audience.broken() == ["the process of the testbed died"]


async def test_an_actor_that_does_not_answer_any_more_breaks_the_session_and_holds_up_nobody(
    stage: Stage, audience: Audience, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(stage, audience) as session:
        await session.up()
        stage.hangs.add("progress")
        with monkeypatch.context() as patch:
            patch.setattr(vigil, "ANSWERS_WITHIN_S", 0.5)
            assert not await session.observe()
        await session.stop_load()
        await session.down()
    assert audience.broken() == ["the load generator of zone east-a does not answer (for 0.5 s by now)"]
    assert audience.heard[-1] == LoadEnded({})
    assert "shut_down" in stage.methods(NODE)


async def test_whatever_goes_wrong_on_the_way_down_is_told_once_and_the_rest_is_done(
    stage: Stage, audience: Audience
) -> None:
    async with opened(stage, audience) as session:
        await session.up()
        stage.breaks = {"stop": ValueError("stop"), "shut_down": KeyError("web-9"), "records": TypeError("records")}
        await session.stop_load()
        records = await session.down()
    told = [event for event in audience.heard if isinstance(event, Broken)]
    assert [(event.why.partition(" (")[0], type(event.defect)) for event in told] == [
        ("ending the load failed: ValueError: stop", ValueError),
        ("ending the cluster's processes failed: KeyError: 'web-9'", KeyError),
        ("collecting the cluster's records failed: TypeError: records", TypeError),
    ]
    assert records.events == []


async def test_a_fault_is_in_force_once_until_it_is_healed(stage: Stage, audience: Audience) -> None:
    async with opened(stage, audience) as session:
        await session.up()
        with pytest.raises(FaultRefused, match="no fault crash is in force"):
            await session.heal("crash")
        await session.inject("crash", CRASH, 0.0)
        with pytest.raises(FaultRefused, match="fault crash is in force already"):
            await session.inject("crash", CRASH, 0.0)
        await session.heal("crash", 0.0)
        await session.inject("crash", CRASH, 0.0)
        for _ in range(2):
            await session.inject("kill", (KillPods(service="web"),), 0.0)
        with pytest.raises(FaultRefused, match="no fault kill is in force"):
            await session.heal("kill", 0.0)
    impacts = [event.impact for event in audience.heard if isinstance(event, FaultApplied)]
    assert [impact.victims for impact in impacts] == [(NODE,), (NODE,), (), ()]
    assert impacts[-1].hit_nothing == "no pod of web was running"


async def test_what_is_refused_changes_nothing_and_is_told_to_nobody_else(stage: Stage, audience: Audience) -> None:
    async with opened(stage, audience) as session:
        await session.up()
        stage.breaks["apply"] = Refused("Service 'web': its name is taken")
        with pytest.raises(Refused, match="its name is taken"):
            await session.apply([Service("web")])
        await session.down()
    assert audience.kinds() == [BringingUp, Ready]


async def test_a_machine_that_is_lost_is_told_by_name(stage: Stage, audience: Audience) -> None:
    async with opened(stage, audience) as session:
        await session.up()
        session.fleet.driver.lost_s = time.monotonic()
        assert not await session.observe()
    assert audience.heard[-1] == MachinesLost(("here",))
