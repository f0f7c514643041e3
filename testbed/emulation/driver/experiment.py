"""A scenario as a script on a session: from nothing to a result folder, with load for its time and faults on time.

What was measured is kept however the experiment ends. `session` acts, `results` remembers and judges.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

from testbed.control.cells.promotion import sharded_stores
from testbed.control.placement import Hosting
from testbed.emulation.actors.reports import MachineFolders
from testbed.emulation.driver import result_folder
from testbed.emulation.driver.course import Course
from testbed.emulation.driver.disk import RunDisk
from testbed.emulation.driver.events import Broken, Interrupted, SessionEvent, Watcher
from testbed.emulation.driver.injection import Injection
from testbed.emulation.driver.interrupts import Interrupts, unless
from testbed.emulation.driver.operating import Operating
from testbed.emulation.driver.outset import prepared
from testbed.emulation.driver.session import Session
from testbed.emulation.driver.survey import Survey
from testbed.results.show.summary import Summary
from testbed.scenario import Scenario

START_LEAD_S = 0.5
"""From the order to start until the first request: long enough for every load generator to have heard it."""
POLL_S = 1.0


def run(
    scenario: Scenario,
    run_dir: Path,
    watcher: Watcher,
    interrupts: Interrupts,
    address: str | None,
    at_least: int,
    hosting: Hosting | None = None,
    only: Sequence[str] = (),
) -> Summary:
    """Carry out the scenario and leave everything in `run_dir`, which must exist; returns the summary.

    Without an `address` Ray is started on this machine; with one, so many machines `at_least` must have joined it, of
    which `only` those take part, if there are any. Without a `hosting` the number of pods a machine decides.
    Raises BringUpFailed, RayUnreachable, PlacementImpossible, FleetUnfit, MachineLost, ActorLost, AddressesExhausted,
    LoadGeneratorFailed, DiskFull or RunInterrupted where there was nothing to measure, and DiskFull also where what was
    measured cannot be analysed for it.
    """
    with prepared(scenario, run_dir, watcher, interrupts, address, at_least, hosting, only) as ready:
        experiment = Experiment(scenario, run_dir, ready.disk, watcher, interrupts)
        summary = asyncio.run(experiment.carry_out(ready.surveyed, ready.folders, ready.ordered_s))
        interrupts.nothing_left()
        return summary


class Experiment:
    """One run of a scenario."""

    def __init__(
        self, scenario: Scenario, run_dir: Path, disk: RunDisk, watcher: Watcher, interrupts: Interrupts
    ) -> None:
        self._scenario = scenario
        self._run_dir = run_dir
        self._disk = disk
        self._watcher = watcher
        self._interrupts = interrupts
        self._course = Course(scenario)
        self._listening: list[Watcher] = []
        self._interrupt = asyncio.Event()

    async def carry_out(self, surveyed: Survey, folders: MachineFolders, ordered_s: float) -> Summary:
        """`ordered_s` is when the user asked for it, in monotonic seconds. Raises what `run` does."""
        opened = Session.opened(self._scenario, surveyed, folders, self._disk, self._tell, ordered_s)
        loop = asyncio.get_running_loop()
        async with contextlib.AsyncExitStack() as ending:
            ending.enter_context(self._interrupts.heard_by(lambda: loop.call_soon_threadsafe(self._interrupted)))
            session = await unless(self._interrupt, ending.enter_async_context(opened))
            await unless(self._interrupt, session.up())
            await unless(self._interrupt, session.prepare_load())
            t0_s = await self._load(session)
            await session.stop_load()
            records = await session.down()
            return result_folder.complete(
                self._run_dir, self._disk, session, self._course, self._scenario.topology, t0_s, records
            )

    async def _load(self, session: Session) -> float:
        """Send load and inject the faults until the end, an interrupt, or something that breaks the session.

        Returns when the load began, in monotonic seconds.
        """
        t0_s = time.monotonic() + START_LEAD_S
        injection = Injection(self._scenario.faults, self._scenario.topology, session, t0_s)
        work: list[Injection | Operating] = [injection]
        if self._scenario.cell_map is not None:
            cell_map, operations = self._scenario.cell_map, self._scenario.operations
            stores = sharded_stores(self._scenario.cluster.deployments)
            work.append(operating := Operating(cell_map, operations, session, self._tell, t0_s, stores))
            self._listening.append(operating.hear)
        tasks = [asyncio.create_task(each.carry_out()) for each in work]
        end = asyncio.create_task(self._end(session, work))
        interrupt = asyncio.create_task(self._interrupt.wait())
        with session.surviving("sending load"):
            await session.start_load(t0_s)
            await asyncio.wait({end, interrupt}, return_when=asyncio.FIRST_COMPLETED)
            if end.done():
                end.result()
        for task in (*tasks, end, interrupt):
            task.cancel()
        return t0_s

    async def _end(self, session: Session, work: Sequence[Injection | Operating]) -> None:
        """Returns when the load has ended by itself, or something has broken the session."""
        while True:
            await asyncio.sleep(POLL_S)
            if not await session.observe():
                return
            if failures := [each.failure for each in work if each.failure is not None]:
                session.break_off(failures[0])
                return
            if session.load_is_over:
                if (why := self._course.overdue(time.monotonic())) is not None:
                    session.break_off(why)
                return

    def _tell(self, event: SessionEvent) -> None:
        self._course.hear(event)
        if isinstance(event, Broken) and event.defect is not None:
            result_folder.write_defect(self._run_dir, event.defect)
        for listener in (self._watcher, *self._listening):
            listener(event)

    def _interrupted(self) -> None:
        self._interrupt.set()
        self._tell(Interrupted())
