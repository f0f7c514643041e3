"""A scenario's script on a session whose actors are played in this process: when it ends, and what is kept."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import pytest

from testbed.control.cells.operations import planned
from testbed.emulation.actors import vigil
from testbed.emulation.actors.load_generator import LoadGeneratorFailed
from testbed.emulation.actors.locust_process import LoadProgress
from testbed.emulation.driver import course as course_module
from testbed.emulation.driver.course import Course
from testbed.emulation.driver.disk import RunDisk
from testbed.emulation.driver.events import (
    Broken,
    FaultApplied,
    FaultHealed,
    Interrupted,
    LoadEnded,
    LoadReported,
    LoadStarted,
    LoadStopping,
    MapChanged,
    MapDelivered,
    Ready,
    SessionEvent,
)
from testbed.emulation.driver.experiment import Experiment
from testbed.emulation.driver.interrupts import Interrupts, RunInterrupted
from testbed.faults.impact import Impact
from testbed.faults.nodes import NodeCrash
from testbed.faults.pods import PodKill
from testbed.faults.timeline import ScheduledFault
from testbed.results.show.summary import Summary
from testbed.results.tables.facts import LocustCount, RunFacts
from testbed.scenario import load_scenario
from tests.emulation.loopback import DEADLINE_S, eventually
from tests.emulation.played import PlayedMachine, Stage, stage

__all__ = ["stage"]

SCENARIO = load_scenario(Path(__file__).parent / "scenarios" / "small.yaml", [])
CRASH = ScheduledFault("crash", 0.4, 0.2, NodeCrash("east-a-1"))


class Running:
    """An experiment that has begun. It is interrupted as by Ctrl-C."""

    def __init__(self, stage: Stage, *faults: ScheduledFault) -> None:
        self.heard: list[SessionEvent] = []
        self.run_dir = stage.folders.logs.parent
        scenario = replace(SCENARIO, faults=faults)
        (self.run_dir / "scenario.yaml").write_text(scenario.resolved_yaml())
        self._interrupts = Interrupts()
        disk = RunDisk(self.run_dir, scenario)
        experiment = Experiment(scenario, self.run_dir, disk, self.heard.append, self._interrupts)
        surveyed = stage.surveyed(scenario)
        self._task = asyncio.create_task(experiment.carry_out(surveyed, stage.folders, time.monotonic()))

    def has(self, kind: type) -> bool:
        return any(isinstance(event, kind) for event in self.heard)

    async def until(self, kind: type) -> None:
        await eventually(lambda: self.has(kind) or self._task.done())
        assert self.has(kind), await self.ended()

    def interrupt(self) -> None:
        self._interrupts.interrupt()

    async def ended(self) -> Summary:
        return await asyncio.wait_for(self._task, DEADLINE_S)

    @property
    def broken(self) -> list[str]:
        return [event.why for event in self.heard if isinstance(event, Broken)]


async def test_it_ends_when_all_is_sent_and_every_fault_has_come(stage: Stage) -> None:
    running = Running(stage, CRASH)
    await running.until(FaultHealed)
    stage.send_all()
    summary = await running.ended()
    assert [fault.victims for fault in RunFacts.load(running.run_dir).faults] == [("east-a-1",)]
    assert running.broken == []
    assert not summary.interrupted
    assert "stop" in stage.methods("clients/east-a")
    assert "shut_down" in stage.methods("east-a-1")


async def test_a_fault_that_does_not_come_breaks_it(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(course_module, "OVERDUE_S", -1000.0)
    running = Running(stage, replace(CRASH, at_s=600.0))
    stage.send_all()
    summary = await running.ended()
    assert running.broken == ["fault crash was due at 600 s and has not come"]
    assert (summary.verdict, summary.invalid_reasons[0]) == ("invalid", running.broken[0])


async def test_a_fault_that_cannot_be_carried_out_ends_it(stage: Stage) -> None:
    stage.breaks["cut_power"] = KeyError("web-9")
    running = Running(stage, CRASH)
    summary = await running.ended()
    assert running.broken[0].startswith("fault crash could not be carried out: KeyError: 'web-9'")
    assert summary.verdict == "invalid"


async def test_an_interrupt_before_the_load_leaves_nothing(stage: Stage) -> None:
    stage.hangs.add("boot")
    running = Running(stage)
    await eventually(lambda: ("east-a-1", "boot") in stage.asked)
    running.interrupt()
    with pytest.raises(RunInterrupted, match="nothing was measured"):
        await running.ended()
    assert not list(running.run_dir.glob("*.json"))


async def test_an_interrupt_while_machines_introduce_themselves_waits_for_none_and_gives_back_what_there_is(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[str] = []

    async def never(machine: PlayedMachine, topology: object) -> None:
        running.interrupt()
        await asyncio.Event().wait()

    async def close(machine: PlayedMachine) -> None:
        await asyncio.sleep(0.05)
        closed.append("here")

    monkeypatch.setattr(PlayedMachine, "start_processes", never)
    monkeypatch.setattr(PlayedMachine, "close", close)
    running = Running(stage)
    with pytest.raises(RunInterrupted):
        await running.ended()
    assert closed == ["here"]


async def test_an_interrupt_while_load_is_sent_keeps_what_was_measured(stage: Stage) -> None:
    running = Running(stage)
    await running.until(LoadReported)
    running.interrupt()
    summary = await running.ended()
    assert (summary.verdict, summary.interrupted) == ("interrupted", True)
    assert running.broken == []
    kinds = [type(event) for event in running.heard]
    assert kinds.index(Interrupted) < kinds.index(LoadStopping)


async def test_a_load_generator_that_fails_at_once_or_later_is_told(stage: Stage) -> None:
    stage.why_no_load = "no such module"
    with pytest.raises(LoadGeneratorFailed):
        await Running(stage).ended()
    stage.why_no_load = None
    running = Running(stage)
    await running.until(LoadReported)
    stage.progress = LoadProgress(error="ended with exit code 3")
    assert (await running.ended()).verdict == "invalid"


async def test_what_nobody_expected_keeps_what_was_measured_and_its_traceback(stage: Stage) -> None:
    running = Running(stage)
    await running.until(LoadReported)
    stage.breaks["progress"] = KeyError("web-9")
    summary = await running.ended()
    assert summary.verdict == "invalid"
    assert summary.invalid_reasons[0].startswith("sending load failed: KeyError: 'web-9'")
    log = (running.run_dir / "logs" / "testbed.log").read_text()
    assert "Traceback (most" in log
    assert "KeyError: 'web-9'" in log


async def test_an_actor_that_hangs_ends_it_by_name(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    running = Running(stage)
    await running.until(LoadReported)
    monkeypatch.setattr(vigil, "ANSWERS_WITHIN_S", 0.5)
    stage.hangs.add("records")
    summary = await running.ended()
    assert summary.verdict == "invalid"
    assert any("the agent of node east-a-1 does not answer" in reason for reason in summary.invalid_reasons)


async def test_a_disk_that_is_full_ends_it_with_what_was_measured(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = Running(stage)
    await running.until(LoadReported)
    monkeypatch.setattr(RunDisk, "_free_bytes", lambda _: 1000)
    summary = await running.ended()
    assert summary.verdict == "invalid"
    assert "is full: " in summary.invalid_reasons[0]


def test_facts_are_made_of_what_was_heard() -> None:
    kill = ScheduledFault("kill", 3.0, None, PodKill(service="web"))
    course = Course(replace(SCENARIO, faults=(CRASH, kill)))
    assert course.overdue(0.0) is None
    for event in (
        Ready(10.25),
        LoadStarted(100.0, 4.0),
        FaultApplied("crash", 100.4, Impact(100.5, (("web-1", 100.6),), ("east-a-1",))),
        FaultApplied("by hand", 101.0, Impact(101.0, (("web-2", 101.0),), ("web-2",))),
    ):
        course.hear(event)
    assert course.overdue(101.0) is None
    assert course.overdue(101.7) == "the heal of fault crash was due at 0.6 s and has not come"
    course.hear(FaultHealed("crash", 100.6, 100.7))
    assert course.overdue(103.9) is None
    assert course.overdue(104.1) == "fault kill was due at 3 s and has not come"
    for event in (Broken("one"), Broken("two"), LoadStopping(103.5), Interrupted(), LoadEnded({"a": COUNT})):
        course.hear(event)
    facts = course.facts((), ())
    assert (facts.ready_s, facts.end_s, facts.locust, facts.broken) == (10.25, 3.5, {"a": COUNT}, "one; two")
    assert not facts.interrupted, "it came when all was over"
    crash, other = facts.faults
    assert (crash.name, crash.applied_s, crash.healed_s, crash.instant) == ("crash", 0.5, pytest.approx(0.7), False)
    assert (other.name, other.declared_at_s, other.victims, other.instant) == ("by hand", 1.0, ("web-2",), True)
    assert facts.killed_proxies == (("web-1", pytest.approx(0.6)), ("web-2", 1.0))


COUNT = LocustCount(requests=7, failures=1)


def test_an_operation_becomes_a_change_with_its_steps_which_is_over_with_the_last_one() -> None:
    scenario = load_scenario(Path(__file__).parents[2] / "scenarios" / "elastic-pop-out.yaml")
    course = Course(scenario)
    assert scenario.cell_map is not None
    steps = planned(scenario.cell_map, scenario.operations)
    course.hear(LoadStarted(100.0, 32.0))
    course.hear(MapChanged(steps[0], 2, 108.01))
    course.hear(MapDelivered(steps[0], "sidecars", 108.3, ()))
    course.hear(MapDelivered(steps[0], "gateways", None, ("gateway-east-a-1",)))
    course.hear(LoadStopping(132.0))
    (begun,) = course.facts((), ()).faults
    assert (begun.name, begun.declared_at_s, begun.healed_s) == ("pop-out", 8.0, None)
    assert begun.applied_s == pytest.approx(8.01)
    (first,) = begun.steps
    assert (first.number, first.of, first.version, first.partitions) == (1, 3, 2, "62-63")
    assert first.delivered_s == {"sidecars": pytest.approx(8.3), "gateways": None}
    assert first.missing == ("gateway-east-a-1",)
    assert [(move.partitions, move.source) for move in first.moves] == [((62, 63), "rz03")]
    for version, step in enumerate(steps[1:], 3):
        course.hear(MapChanged(step, version, 100.0 + step.at_s))
    (over,) = course.facts((), ()).faults
    assert (over.healed_s, [step.reverts for step in over.steps]) == (22.0, [False, False, False, True])
