"""The actors of a cluster, played by objects of the test's own process, which does to them what happens to real ones.

The driver around them is the real one: fleet, cluster, session and experiment.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from loadgen.command import guest_line
from loadgen.settings import Settings
from testbed.control.overview import NodeStatus, Overview, PodStatus
from testbed.control.placement import Machine
from testbed.control.waiting import Waiting
from testbed.emulation.actors import machine
from testbed.emulation.actors.load_generator import LoadGenerator
from testbed.emulation.actors.locust_process import LoadProgress
from testbed.emulation.actors.master import Master, PodsEver
from testbed.emulation.actors.node_agent import NodeAgent
from testbed.emulation.actors.reports import MachineFolders, Push, Readiness, Recorded
from testbed.emulation.actors.seam import Actor, SharedProcess, handle_of
from testbed.emulation.actors.vigil import Attended
from testbed.emulation.driver import commands, experiment, session, up
from testbed.emulation.driver import fleet as fleet_module
from testbed.emulation.driver.ray_connection import RayMachine
from testbed.emulation.driver.survey import Survey, survey
from testbed.network.links import LinkSample
from testbed.objects.core import Pod
from testbed.objects.places import Topology
from testbed.results.tables.facts import LocustCount
from testbed.scenario import Scenario

HERE = RayMachine(Machine("here", "127.0.0.1", None, 16 << 30, 2.0), "here", is_driver=True, is_head=True)


@dataclass
class Stage:
    """What all actors of a test have in common."""

    folders: MachineFolders
    asked: list[tuple[str, str]] = field(default_factory=list)
    """Who was asked what, in order."""
    breaks: dict[str, BaseException] = field(default_factory=dict)
    """What asking any actor for that raises."""
    hangs: set[str] = field(default_factory=set)
    """What no actor answers."""
    waiting_for: tuple[Waiting, ...] = ()
    progress: LoadProgress = field(default_factory=lambda: LoadProgress(t_s=1.0, sent_per_s=20.0))
    why_no_load: str | None = None
    why_no_page: str | None = None
    guests: tuple[LocustCount | None, int] = (None, 0)
    actors: dict[str, Played] = field(default_factory=dict)

    def surveyed(self, scenario: Scenario) -> Survey:
        return survey(scenario, [HERE], "node")

    def methods(self, who: str) -> list[str]:
        return [method for actor, method in self.asked if actor == who]

    def send_all(self) -> None:
        """Every load generator is done, by Locust's own count."""
        self.progress = LoadProgress(done=LocustCount(requests=0, failures=0))

    def _start(self, kind: type, *arguments: Any, node_id: str = "") -> Actor:
        names: dict[type, Callable[[], Played]] = {
            Master: lambda: PlayedMaster("master", self),
            NodeAgent: lambda: PlayedAgent(arguments[0], self),
            LoadGenerator: lambda: PlayedLoadGenerator(f"clients/{arguments[0]}", self),
            SharedProcess: lambda: Played("a shared process", self),
        }
        actor = names[kind]()
        self.actors[actor.name] = actor
        return handle_of(actor)


class Played(Attended):
    def __init__(self, name: str, stage: Stage) -> None:
        super().__init__(name)
        self.name = name
        self.stage = stage

    async def hear(self, method: str) -> None:
        self.stage.asked.append((self.name, method))
        if method in self.stage.hangs:
            await asyncio.Event().wait()
        if method in self.stage.breaks:
            raise self.stage.breaks[method]

    async def impose(self, fault: str, pairs: Any, effect: Any, due_s: float) -> float:
        await self.hear("impose")
        return due_s

    async def lift(self, fault: str, due_s: float) -> float:
        await self.hear("lift")
        return due_s

    async def boot(self) -> None:
        await self.hear("boot")

    async def records(self) -> list[Recorded]:
        await self.hear("records")
        return []

    async def shut_down(self) -> None:
        await self.hear("shut_down")


class PlayedMaster(Played):
    async def connect(self, subscribers: Any, clock_offsets_s: Any) -> None:
        await self.hear("connect")

    async def declare(self) -> None:
        await self.hear("declare")

    async def apply(self, objects: Any) -> None:
        await self.hear("apply")

    async def delete(self, kind: type, name: str) -> None:
        await self.hear("delete")

    async def readiness(self) -> Readiness:
        await self.hear("readiness")
        waiting = self.stage.waiting_for
        return Readiness(started=2, ready=2 - bool(waiting), total=2, waiting_for=waiting)

    async def overview(self) -> Overview:
        nodes = (NodeStatus("east-a-1", "east-a", "True", 1),)
        return Overview(nodes, (PodStatus("web-1", "east-a-1", "Running", True, 0, "", "in sync"),))

    async def pods_ever(self) -> PodsEver:
        return {}, {}

    async def pushes(self) -> list[Push]:
        return []

    async def pushed_resources(self) -> tuple[int, bytes]:
        return 0, b""


class PlayedAgent(Played):
    async def cut_power(self, fault: str) -> tuple[float, list[str]]:
        await self.hear("cut_power")
        return time.monotonic(), ["web-1"]

    async def restore_power(self, fault: str) -> float:
        await self.hear("restore_power")
        return time.monotonic()

    async def running_pods(self) -> list[Pod]:
        return []


class PlayedLoadGenerator(Played):
    async def prepare(self, *files: Path | None) -> str | None:
        await self.hear("prepare")
        return self.stage.why_no_load

    async def start(self, t0_s: float) -> None:
        await self.hear("start")

    async def welcome_guests(self, ids_file: Path | None) -> str:
        nowhere = Path("nowhere")
        settings = Settings("east-a", 0, (), 1.0, (), 1.0, 1.0, nowhere, 1.0, nowhere, None, guests_socket=nowhere)
        file = self.stage.folders.logs / "east-a.guests.json"
        settings.save(file)
        return guest_line(file)

    async def open_page(self, port: int, locustfile: Path | None) -> str | None:
        await self.hear("open_page")
        return self.stage.why_no_page

    async def dismiss_guests(self) -> tuple[LocustCount | None, int]:
        return self.stage.guests

    async def progress(self) -> LoadProgress:
        await self.hear("progress")
        return self.stage.progress

    async def stop(self) -> None:
        await self.hear("stop")


class PlayedMachine(machine.Machine):
    """A machine whose links are nobody's."""

    async def start_processes(self, topology: Topology) -> None: ...

    async def impose(self, fault: str, pairs: Any, effect: Any, due_s: float) -> float:
        return due_s

    async def lift(self, fault: str, due_s: float) -> float:
        return due_s

    async def link_samples(self) -> list[LinkSample]:
        return []


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """A run folder is at `stage.folders.logs.parent`."""
    logs = tmp_path / "run" / "logs"
    logs.mkdir(parents=True)
    played = Stage(MachineFolders(logs, tmp_path, "testbed-test"))
    monkeypatch.setattr(fleet_module, "start_actor", played._start)
    monkeypatch.setattr(fleet_module, "start_in", lambda _, kind, *arguments: played._start(kind, *arguments))
    monkeypatch.setattr(fleet_module, "Machine", PlayedMachine)
    monkeypatch.setattr(experiment, "POLL_S", 0.01)
    monkeypatch.setattr(experiment, "START_LEAD_S", 0.0)
    monkeypatch.setattr(up, "POLL_S", 0.01)
    monkeypatch.setattr(commands, "START_LEAD_S", 0.0)
    monkeypatch.setattr(session, "FLUSH_S", 0.0)
    return played
