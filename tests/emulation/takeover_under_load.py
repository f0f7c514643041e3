"""A cluster of several masters of which the leading one is killed under load: real masters, proxies, pods and clients,
all actors in one process.

A program of its own, because gRPC must be told before it starts that its process forks. Arguments: the scenario, a
folder for what is written, and what of the scenario is to differ.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from testbed.emulation.actors.machine import launch_fork_server
from testbed.emulation.actors.reports import MachineFolders, Recorded
from testbed.emulation.driver import fleet as fleet_module
from testbed.emulation.driver.channel import ask
from testbed.emulation.driver.disk import RunDisk
from testbed.emulation.driver.events import RecordsCollected, SessionEvent, TimeBegins
from testbed.emulation.driver.interrupts import Interrupts
from testbed.emulation.driver.outset import Prepared
from testbed.emulation.driver.survey import survey
from testbed.emulation.driver.up import Up
from testbed.emulation.processes.janitor import Janitor
from testbed.scenario import Scenario, load_scenario
from tests.emulation.change_under_load import HERE, start

WITHIN_S = 30.0
POD = "web-1"


class Watched:
    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.events: list[Recorded] = []

    def hear(self, event: SessionEvent) -> None:
        match event:
            case TimeBegins():
                self.begun.set()
            case RecordsCollected():
                self.events += event.events

    async def next(self, found: Callable[[Recorded], bool], after: int = 0) -> Recorded:
        """The first such event of those after so many."""
        async with asyncio.timeout(WITHIN_S):
            while True:
                for event in self.events[after:]:
                    if found(event):
                        return event
                await asyncio.sleep(0.02)


async def taken_over(scenario: Scenario, run_dir: Path) -> None:
    logs, watched = run_dir / "logs", Watched()
    logs.mkdir()
    (run_dir / "scenario.yaml").write_text(scenario.resolved_yaml())
    janitor = Janitor()
    folders = MachineFolders(logs, janitor.folder, janitor.run_id)
    launch_fork_server(janitor, folders)
    ready = Prepared(survey(scenario, [HERE], "node"), folders, RunDisk(run_dir, scenario), time.monotonic())
    socket = folders.sockets / "up"
    up = Up(scenario, run_dir, socket, watched.hear, Interrupts(), load=True, pages=False)
    running = asyncio.create_task(up.carry_out(ready))

    async def inject(text: str) -> Any:
        return await asyncio.to_thread(ask, socket, "inject", file="-", text=text)

    try:
        begun = asyncio.create_task(watched.begun.wait())
        await asyncio.wait({begun, running}, return_when=asyncio.FIRST_COMPLETED)
        leader = await watched.next(lambda event: event.reason == "LeaderElected")
        await asyncio.sleep(1.0)  # under load
        before = len(watched.events)
        await inject(f"{{name: takeover, kill: {{master: {leader.source}}}}}")
        await watched.next(lambda event: event.reason == "LeaderElected", before)
        # It is back, and nothing was missed for as long as a lease is valid.
        await watched.next(lambda event: (event.source, event.reason) == (leader.source, "Started"), before)
        await asyncio.sleep(scenario.cluster.timings.lease_grace_s)
        before = len(watched.events)
        await inject(f"{{name: pod, kill: {{pod: {POD}}}}}")
        await watched.next(lambda event: (event.object, event.reason) == (POD, "Ready"), before)
        await asyncio.to_thread(ask, socket, "down")
        await running
    finally:
        running.cancel()
        janitor.dismiss()


if __name__ == "__main__":
    fleet_module.start_actor = start
    asyncio.run(taken_over(load_scenario(Path(sys.argv[1]), sys.argv[3:]), Path(sys.argv[2])))
