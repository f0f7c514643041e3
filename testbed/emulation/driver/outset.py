"""What there must be before a session can be opened, and is ended after it: a janitor, a fork server, the connection to
Ray, and machines on which everything has a place."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from testbed.control.placement import Hosting
from testbed.emulation.actors.machine import launch_fork_server
from testbed.emulation.actors.reports import MachineFolders
from testbed.emulation.driver.disk import RunDisk
from testbed.emulation.driver.events import ConnectingToRay, Watcher
from testbed.emulation.driver.interrupts import Interrupts
from testbed.emulation.driver.ray_connection import connected_to_ray
from testbed.emulation.driver.survey import (
    Survey,
    chosen_machines,
    expected_actors,
    joined_machines,
    require_breakable,
    survey,
)
from testbed.emulation.processes.janitor import Janitor
from testbed.scenario import Scenario


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a Session is opened with. `ordered_s` is when its user asked for it, in monotonic seconds, without the time
    for which machines had to be waited for."""

    surveyed: Survey
    folders: MachineFolders
    disk: RunDisk
    ordered_s: float


@contextlib.contextmanager
def prepared(
    scenario: Scenario,
    run_dir: Path,
    watcher: Watcher,
    interrupts: Interrupts,
    address: str | None,
    at_least: int,
    hosting: Hosting | None,
    only: Sequence[str] = (),
) -> Iterator[Prepared]:
    """Without an `address` Ray is started on this machine; with one, so many machines `at_least` must have joined it,
    of which `only` those of these names or addresses take part, if there are any.

    Without a `hosting` the number of pods a machine decides. `run_dir` must exist. Raises RayUnreachable,
    PlacementImpossible, FleetUnfit or DiskFull.
    """
    ordered_s = time.monotonic()
    disk = RunDisk(run_dir, scenario)
    disk.require_room()
    (run_dir / "scenario.yaml").write_text(scenario.resolved_yaml())
    log_dir = run_dir / "logs"
    log_dir.mkdir()
    janitor = Janitor()
    with contextlib.ExitStack() as ending:
        ending.callback(janitor.dismiss)
        folders = MachineFolders(log_dir, janitor.folder, janitor.run_id)
        # What it imports does not take as long as Ray's start.
        launch_fork_server(janitor, folders)
        watcher(ConnectingToRay(address))
        ending.enter_context(reached_ray(interrupts, address, janitor, expected_actors(scenario, hosting)))
        waiting_since_s = time.monotonic()
        found = joined_machines(max(at_least, len(only)), watcher)
        found = chosen_machines(found, only) if only else found
        ordered_s += time.monotonic() - waiting_since_s
        surveyed = survey(scenario, found, hosting)
        require_breakable(scenario, surveyed.machines)
        yield Prepared(surveyed, folders, disk, ordered_s)


@contextlib.contextmanager
def reached_ray(interrupts: Interrupts, address: str | None, janitor: Janitor, processes: int) -> Iterator[None]:
    """The connection to Ray. While it is made, Ray takes SIGTERM for itself and answers it with SystemExit.

    Raises RayUnreachable.
    """
    with contextlib.ExitStack() as connection:
        try:
            connection.enter_context(connected_to_ray(address, janitor, processes))
        except SystemExit:
            interrupts.install()
            interrupts.interrupt()
        interrupts.install()
        yield
