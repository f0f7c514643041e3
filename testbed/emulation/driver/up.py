"""A session that a person drives: up until it is ended, asked by commands from any terminal, and recorded as a run is.

`session` acts, `commands` are what can be asked, `channel` is the way to ask; `results` remembers and judges.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from testbed.control.placement import Hosting
from testbed.emulation.actors.load_generator import LoadGeneratorFailed
from testbed.emulation.actors.reports import Readiness
from testbed.emulation.actors.vigil import ActorLost
from testbed.emulation.driver import result_folder
from testbed.emulation.driver.channel import Declined, listening
from testbed.emulation.driver.commands import Commands
from testbed.emulation.driver.course import Course
from testbed.emulation.driver.events import (
    Broken,
    ComingUp,
    GoingDown,
    SessionEvent,
    TimeBegins,
    Watcher,
)
from testbed.emulation.driver.interrupts import Interrupts, unless
from testbed.emulation.driver.member import MachineLost
from testbed.emulation.driver.outset import Prepared, prepared
from testbed.emulation.driver.power_off import PowerOffFailed
from testbed.emulation.driver.session import FaultRefused, Session
from testbed.emulation.processes.master import ControlPlaneDown
from testbed.results.show.summary import Summary
from testbed.scenario import Scenario

POLL_S = 1.0
PAGE_PORT = 8089
"""Of the first page on a machine: Locust's own."""

_COMMANDS: dict[str, tuple[str, ...]] = {
    "status": (),
    "inject": ("file", "text"),
    "heal": ("fault",),
    "apply": ("file", "text", "folder", "overrides"),
    "load": ("do",),
}
"""Methods of Commands, with their arguments."""


def up(
    scenario: Scenario,
    run_dir: Path,
    socket: Path,
    watcher: Watcher,
    interrupts: Interrupts,
    address: str | None,
    at_least: int,
    hosting: Hosting | None,
    only: Sequence[str] = (),
    *,
    load: bool,
    pages: bool,
) -> Summary:
    """Bring the scenario's cluster up, keep it until a person ends it, and leave everything in `run_dir`, which must
    exist. It is asked at `socket`; `load` sends what is declared from the start, `pages` opens Locust's web page for
    the clients of each zone.

    The rest is as for `experiment.run`, also what is raised.
    """
    scenario = replace(scenario, load=replace(scenario.load, duration_s=math.inf))
    with prepared(scenario, run_dir, watcher, interrupts, address, at_least, hosting, only) as ready:
        session = Up(scenario, run_dir, socket, watcher, interrupts, load=load, pages=pages)
        summary = asyncio.run(session.carry_out(ready))
        interrupts.nothing_left()
        return summary


class Up:
    """One session from its bring-up to its result folder."""

    def __init__(
        self,
        scenario: Scenario,
        run_dir: Path,
        socket: Path,
        watcher: Watcher,
        interrupts: Interrupts,
        *,
        load: bool,
        pages: bool,
    ) -> None:
        self._scenario = scenario
        self._run_dir = run_dir
        self._socket = socket
        self._watcher = watcher
        self._interrupts = interrupts
        self._load = load
        self._pages = pages
        self._course = Course(scenario)
        self._commands: Commands | None = None
        self._end = asyncio.Event()
        self._coming_up = "coming up"
        self._kept: asyncio.Future[Summary] | None = None

    async def carry_out(self, ready: Prepared) -> Summary:
        """Raises what `up` does."""
        opened = Session.opened(self._scenario, ready.surveyed, ready.folders, ready.disk, self._tell, ready.ordered_s)
        loop = asyncio.get_running_loop()
        kept: asyncio.Future[Summary] = loop.create_future()
        async with listening(self._socket, self._answer), contextlib.AsyncExitStack() as ending:
            ending.enter_context(self._interrupts.heard_by(lambda: loop.call_soon_threadsafe(self._end.set)))
            session = await unless(self._end, ending.enter_async_context(opened))
            await unless(self._end, session.up())
            await unless(self._end, session.start_sampling())
            welcome = await session.welcome_guests(PAGE_PORT if self._pages else None)
            t0_s, self._kept = time.monotonic(), kept
            self._tell(TimeBegins(t0_s))
            commands = Commands(session, self._scenario, ready.surveyed.machines, self._run_dir, t0_s)
            self._commands = commands
            self._tell(welcome)
            with session.surviving("keeping the cluster up"):
                await self._stay(session, commands)
            self._tell(GoingDown(time.monotonic()))
            with session.surviving("ending the load"):
                await asyncio.gather(commands.end(), session.dismiss_guests())
            self._course.amended(commands.scenario)
            records = await session.down()
            summary = result_folder.complete(
                self._run_dir, ready.disk, session, self._course, self._scenario.topology, t0_s, records
            )
            kept.set_result(summary)
            return summary

    async def _stay(self, session: Session, commands: Commands) -> None:
        """Returns when a person has ended it, or something has broken it."""
        if self._load:
            try:
                await commands.load("start")
            except Declined as declined:
                raise LoadGeneratorFailed(str(declined)) from declined
        while not self._end.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._end.wait(), POLL_S)
            going = await session.observe()
            if commands.sends_load and (session.load_is_over or session.load_failed):
                await commands.load("stop")
            elif not going:
                return
            if commands.failure is not None:
                session.break_off(commands.failure)
                return

    async def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        command = request.get("command")
        if command == "down":
            return await self._down()
        if self._end.is_set():
            raise Declined("the cluster is going down")
        if self._commands is None:
            if command == "status":
                return {"coming_up": self._coming_up}
            raise Declined("the cluster is still coming up")
        if command not in _COMMANDS:
            raise Declined(f"there is no command {command!r}; there are down, {', '.join(_COMMANDS)}")
        try:
            arguments = {name: request[name] for name in _COMMANDS[command]}
            answer: dict[str, Any] = await getattr(self._commands, command)(**arguments)
        except KeyError as missing:
            raise Declined(f"{command} lacks {missing}") from missing
        except (MachineLost, ActorLost, ControlPlaneDown, FaultRefused, PowerOffFailed) as failure:
            raise Declined(str(failure)) from failure
        return answer

    async def _down(self) -> dict[str, Any]:
        self._end.set()
        if self._kept is None:
            return {"run_dir": None}
        summary = await asyncio.shield(self._kept)
        return {"run_dir": str(self._run_dir), "verdict": summary.verdict, "why": list(summary.invalid_reasons)}

    def _tell(self, event: SessionEvent) -> None:
        self._course.hear(event)
        if self._commands is not None:
            self._commands.hear(event)
        match event:
            case ComingUp(readiness=Readiness() as readiness):
                self._coming_up = f"coming up, {readiness.ready} of {readiness.total} pods are ready"
            case Broken(defect=Exception() as defect):
                result_folder.write_defect(self._run_dir, defect)
        self._watcher(event)
