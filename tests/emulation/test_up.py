"""A session that a person drives, over its real socket, with actors that are played: what is answered, and kept."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from testbed.control.waiting import Waiting
from testbed.emulation.actors.load_generator import LoadGeneratorFailed
from testbed.emulation.actors.locust_process import LoadProgress
from testbed.emulation.driver.channel import Declined, Unreachable, ask
from testbed.emulation.driver.disk import RunDisk
from testbed.emulation.driver.events import ComingUp, LoadEnded, LoadStarted, SessionEvent, TimeBegins
from testbed.emulation.driver.interrupts import Interrupts, RunInterrupted
from testbed.emulation.driver.outset import Prepared
from testbed.emulation.driver.up import Up
from testbed.results.show.summary import Summary
from testbed.results.tables.facts import LocustCount, RunFacts
from testbed.scenario import load_scenario
from tests.emulation.loopback import DEADLINE_S, eventually
from tests.emulation.played import Stage, stage

__all__ = ["stage"]

FILE = Path(__file__).parent / "scenarios" / "small.yaml"
TEXT = FILE.read_text()
SCENARIO = load_scenario(FILE)
EXPECT = """
  faults: [{name: crash, at: 2s, for: 1s, crash: {zone: east-a}}, {name: other, at: 3s, kill: {service: web}}]
  expect:
    - {metric: errors, when: during, fault: crash, atMost: 9}
    - {metric: errors, when: after, fault: other, atMost: 9}
"""
CRASH = "{name: crash, crash: {node: east-a-1}}"


class Standing:
    """A cluster that is up. It is interrupted as by Ctrl-C."""

    def __init__(self, stage: Stage, *, pages: bool = False) -> None:
        self.stage = stage
        self.heard: list[SessionEvent] = []
        self.run_dir = stage.folders.logs.parent
        self.socket = stage.folders.sockets / "socket"
        self.interrupts = Interrupts()
        disk = RunDisk(self.run_dir, SCENARIO)
        ready = Prepared(stage.surveyed(SCENARIO), stage.folders, disk, time.monotonic())
        scenario = replace(SCENARIO, load=replace(SCENARIO.load, duration_s=float("inf")))
        self.up = Up(scenario, self.run_dir, self.socket, self.heard.append, self.interrupts, load=False, pages=pages)
        self.task = asyncio.create_task(self.up.carry_out(ready))

    async def until(self, kind: type, times: int = 1) -> None:
        await eventually(lambda: sum(isinstance(event, kind) for event in self.heard) >= times or self.task.done())

    async def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        return await asyncio.to_thread(ask, self.socket, command, **arguments)

    async def inject(self, text: str) -> list[dict[str, Any]]:
        faults: list[dict[str, Any]] = (await self.ask("inject", file="fault.yaml", text=text))["faults"]
        return faults

    async def apply(self, text: str) -> dict[str, Any]:
        return await self.ask("apply", file="new.yaml", text=text, folder=str(FILE.parent), overrides=[])

    async def refusal(self, command: str, **arguments: Any) -> str:
        with pytest.raises(Declined) as declined:
            await self.ask(command, **arguments)
        return str(declined.value)

    async def ended(self) -> Summary:
        return await asyncio.wait_for(self.task, DEADLINE_S)

    def facts(self) -> RunFacts:
        return RunFacts.load(self.run_dir)


@asynccontextmanager
async def standing(stage: Stage) -> AsyncIterator[Standing]:
    cluster = Standing(stage)
    try:
        await cluster.until(TimeBegins)
        yield cluster
    finally:
        cluster.task.cancel()


async def test_what_a_person_breaks_and_changes_is_kept_as_that_of_a_run(stage: Stage) -> None:
    async with standing(stage) as cluster:
        assert await cluster.inject(CRASH) == [{"name": "crash", "in_s": None, "for_s": None, "hit": "east-a-1"}]
        (fault,) = (await cluster.ask("status"))["faults"]
        assert (fault["name"], fault["victims"]) == ("crash", ["east-a-1"])
        unsettled = await cluster.apply(TEXT.replace("replicas: 1", "replicas: 2"))
        assert (unsettled["applied"], unsettled["settled"]) == (["Deployment web"], False)
        assert unsettled["why"] == "crash is in force"
        assert (await cluster.ask("heal", fault="crash"))["lasted_s"] >= 0
        settled = await cluster.apply(TEXT.replace("replicas: 1", "replicas: 3") + EXPECT)
        assert (settled["change"], settled["settled"]) == ("apply-2", True)
        assert (await cluster.apply(TEXT.replace("replicas: 1", "replicas: 3") + EXPECT))["change"] is None
        answer = await cluster.ask("down")
        assert (answer["run_dir"], answer["why"]) == (str(cluster.run_dir), [])
        await cluster.ended()
    facts = cluster.facts()
    assert [(fault.name, fault.instant, fault.healed_s is None) for fault in facts.faults] == [
        ("crash", False, False),
        ("apply", False, True),
        ("apply-2", False, False),
    ]
    assert [each.fault for each in facts.expectations] == ["crash"], "no fault was called other"
    assert facts.sources == (), "no load was ever sent"
    assert (cluster.run_dir / "report.html").exists()
    assert "replicas: 3" in (cluster.run_dir / "apply-2.yaml").read_text()


async def test_load_is_started_and_stopped_as_often_as_one_likes_and_counted_together(stage: Stage) -> None:
    async with standing(stage) as cluster:
        for times in (1, 2):
            await cluster.ask("load", do="start")
            assert await cluster.refusal("load", do="start") == "load is being sent already"
            assert (await cluster.ask("status"))["load"]["declared"]
            stage.progress = LoadProgress(done=LocustCount(requests=times, failures=0))
            await cluster.until(LoadEnded, times)
            stage.progress = LoadProgress(t_s=1.0, sent_per_s=20.0)
        await cluster.ask("load", do="start")
        await cluster.ask("load", do="stop")
        assert await cluster.refusal("load", do="stop") == "no load is being sent"
        await cluster.ask("down")
        await cluster.ended()
    facts = cluster.facts()
    assert facts.locust == {"east-a": LocustCount(requests=3, failures=0)}
    assert len(facts.sending) == 3
    assert facts.sources == SCENARIO.load.sources
    assert all(0 <= begun_s <= end_s <= facts.end_s for begun_s, end_s in facts.sending)
    assert facts.warmup_s == pytest.approx(facts.sending[0][0] + SCENARIO.load.warmup_s)


async def test_load_that_fails_is_over_and_the_cluster_stays_up(stage: Stage) -> None:
    async with standing(stage) as cluster:
        stage.why_no_load = "mine.py:1: no such module"
        assert await cluster.refusal("load", do="start") == "mine.py:1: no such module"
        stage.why_no_load = None
        await cluster.ask("load", do="start")
        stage.progress = LoadProgress(error="the load generator of east-a ended with exit code 9")
        await cluster.until(LoadEnded)
        stage.progress = LoadProgress(t_s=1.0)
        await cluster.ask("load", do="start")
        await cluster.until(LoadStarted, 2)
        await cluster.ask("down")
        await cluster.ended()


async def test_what_happens_twice_has_two_names_and_what_is_planned_comes_and_goes_by_itself(stage: Stage) -> None:
    async with standing(stage) as cluster:
        (first,) = await cluster.inject("{name: crash, for: 10ms, crash: {node: east-a-1}}")
        await eventually(lambda: stage.methods("east-a-1").count("restore_power") == 1)
        (second,) = await cluster.inject("{name: crash, for: 50ms, crash: {node: east-a-1}}")
        assert (first["name"], second["name"]) == ("crash", "crash-2")
        await cluster.ask("heal", fault="crash-2")
        (planned,) = await cluster.inject("{name: crash, at: 1h, crash: {node: east-a-1}}")
        assert (planned["name"], planned["in_s"], planned["hit"]) == ("crash-3", 3600.0, None)
        assert cluster.up._commands is not None
        _, with_heal, _ = cluster.up._commands._injections
        await asyncio.wait_for(with_heal, DEADLINE_S)  # its heal has come, and found nothing to heal
        assert cluster.up._commands.failure is None
        await cluster.ask("down")
        summary = await cluster.ended()
    assert [fault.name for fault in summary.faults] == ["crash", "crash-2"]


async def test_wrong_input_is_declined_with_what_would_be_right_and_changes_nothing(stage: Stage) -> None:
    async with standing(stage) as cluster:
        assert await cluster.refusal("inject", file="f.yaml", text="{name: a, crash: {node: east-a-2}}") == (
            "f.yaml:1:25: crash.node: there is no node 'east-a-2'; did you mean 'east-a-1'?"
        )
        off = "{name: a, machine: m2, powerOff: {}}"
        assert "fault a: " in await cluster.refusal("inject", file="f.yaml", text=off)
        gone = "{name: a, kill: {pod: web-7}}"
        assert await cluster.refusal("inject", file="f.yaml", text=gone) == (
            "fault a: there is no pod web-7; there are web-1"
        )
        assert await cluster.refusal("heal", fault="crash") == "no fault is in force"
        await cluster.inject(CRASH)
        assert await cluster.refusal("heal", fault="krash") == "no fault krash is in force; there is crash"
        assert "there is no command 'fly'" in await cluster.refusal("fly")
        assert "inject lacks 'text'" in await cluster.refusal("inject", file="f.yaml")
        assert "cannot change while the cluster is up" in await cluster.refusal(
            "apply", file="n.yaml", text=TEXT.replace("nodes: 1", "nodes: 2"), folder="/", overrides=[]
        )
        await cluster.ask("down")
        summary = await cluster.ended()
    assert [fault.name for fault in summary.faults] == ["crash"]


async def test_ctrl_c_takes_it_down_in_order_and_is_no_interrupt(stage: Stage) -> None:
    async with standing(stage) as cluster:
        await cluster.ask("load", do="start")
        cluster.interrupts.interrupt()
        summary = await cluster.ended()
    assert not summary.interrupted
    assert "stop" in stage.methods("clients/east-a")
    with pytest.raises(Unreachable):
        await cluster.ask("status")


async def test_while_it_comes_up_one_can_look_and_give_it_up_but_not_break_it(stage: Stage) -> None:
    stage.waiting_for = (Waiting("pod", "web-1", "it is not ready"),)
    cluster = Standing(stage)
    await cluster.until(ComingUp, 5)
    await eventually(lambda: isinstance(cluster.heard[-1], ComingUp) and cluster.heard[-1].readiness is not None)
    assert await cluster.ask("status") == {"coming_up": "coming up, 1 of 2 pods are ready"}
    assert await cluster.refusal("heal", fault="crash") == "the cluster is still coming up"
    assert await cluster.ask("down") == {"run_dir": None}
    with pytest.raises(RunInterrupted):
        await cluster.ended()


async def test_what_breaks_it_ends_it_and_what_was_measured_is_kept(stage: Stage) -> None:
    async with standing(stage) as cluster:
        stage.actors["east-a-1"].report_defect("a defect of the agent of node east-a-1: KeyError: 'web-9'")
        summary = await cluster.ended()
    assert summary.verdict == "invalid"
    assert "KeyError: 'web-9'" in summary.invalid_reasons[0]


@pytest.mark.parametrize(("vanished", "counts"), [(0, {"east-a": LocustCount(requests=12, failures=1)}), (1, {})])
async def test_what_guests_have_counted_is_added_and_a_zone_of_which_one_has_not_has_no_count(
    stage: Stage, vanished: int, counts: dict[str, LocustCount]
) -> None:
    async with standing(stage) as cluster:
        stage.progress = LoadProgress(done=LocustCount(requests=5, failures=0))
        await cluster.ask("load", do="start")
        await cluster.until(LoadEnded)
        stage.guests = (LocustCount(requests=7, failures=1), vanished)
        await cluster.ask("down")
        await cluster.ended()
    assert cluster.facts().locust == counts


async def test_a_page_that_cannot_be_opened_is_told_and_nothing_stays_up(stage: Stage) -> None:
    stage.why_no_page = "Locust's page of east-a ended: my.py:1: no such module"
    cluster = Standing(stage, pages=True)
    with pytest.raises(LoadGeneratorFailed, match="no such module"):
        await cluster.ended()
    assert not any(isinstance(event, TimeBegins) for event in cluster.heard)


async def test_how_one_sends_by_locust_itself_is_told_by_status(stage: Stage) -> None:
    cluster = Standing(stage, pages=True)
    await cluster.until(TimeBegins)
    await eventually(lambda: cluster.up._commands is not None)
    locust = (await cluster.ask("status"))["locust"]["east-a"]
    assert locust["page"].startswith("http://127.0.0.1:")
    assert locust["line"].startswith(f"TESTBED_LOAD={stage.folders.logs}/east-a.guests.json ")
    await cluster.ask("down")
    await cluster.ended()
