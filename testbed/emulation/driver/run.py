"""One run from nothing to a result folder: Ray, cluster, load, faults on time, records, summary.

Drives; the cluster's actors act, `results` remembers and judges. What was measured is kept however the run ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import traceback
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from testbed.control.placement import Hosting, hosting_for
from testbed.emulation.actors.load_generator import LoadProgress
from testbed.emulation.actors.reports import MachineFolders
from testbed.emulation.actors.vigil import ActorLost, in_short
from testbed.emulation.driver.cluster import ClusterRecords, EmulatedCluster
from testbed.emulation.driver.disk import DiskFull, RunDisk
from testbed.emulation.driver.fleet import Fleet, Survey, joined_machines, survey
from testbed.emulation.driver.injection import Injection
from testbed.emulation.driver.interrupts import Interrupts
from testbed.emulation.driver.member import MachineLost
from testbed.emulation.driver.ray_session import ray_session
from testbed.emulation.driver.recording import record
from testbed.emulation.processes.janitor import Janitor
from testbed.results.show.summarize import summarize
from testbed.results.show.summary import Summary
from testbed.results.tables.facts import LocustCount, MachineFacts, RunFacts, UnreadLines
from testbed.scenario import Scenario

START_LEAD_S = 0.5
"""From the order to start until the first request: long enough for every load generator to have heard it."""
POLL_S = 1.0
DEFECTS = "testbed.log"
"""In the folder of logs: tracebacks of what should not have happened."""
FLUSH_S = 0.3
"""Envoy writes its access log out every 200 ms."""


class Observer(Protocol):
    """Whoever watches a run. Times in seconds since the load began."""

    def stage(self, text: str) -> None: ...

    def doing(self, text: str) -> None:
        """How far the stage is that was named last; often, and in its own words."""
        ...

    def fault(self, t_s: float, name: str, what: str) -> None: ...

    def load(self, t_s: float, duration_s: float, zones: dict[str, LoadProgress]) -> None: ...


class RunInterrupted(Exception):
    """The user ended the run before there was anything to measure."""


@dataclass(slots=True)
class _Course:
    """What happened in this run so far. Monotonic seconds."""

    ready_s: float = 0.0
    t0_s: float = 0.0
    end_s: float = 0.0
    locust: dict[str, LocustCount] = field(default_factory=dict)
    interrupted: bool = False
    broken: list[str] = field(default_factory=list)


def run(
    scenario: Scenario,
    run_dir: Path,
    observer: Observer,
    interrupts: Interrupts,
    address: str | None,
    at_least: int,
    hosting: Hosting | None = None,
) -> Summary:
    """Carry out the scenario and leave everything in `run_dir`, which must exist; returns the summary.

    Without an `address` Ray is started on this machine; with one, so many machines `at_least` must have joined it.
    Without a `hosting` the number of pods a machine decides.
    Raises BringUpFailed, RayUnreachable, PlacementImpossible, FleetUnfit, MachineLost, ActorLost, AddressesExhausted,
    LoadGeneratorFailed, DiskFull or RunInterrupted where there was nothing to measure, and DiskFull also where what was
    measured cannot be analysed for it.
    """
    started_s = time.monotonic()
    disk = RunDisk(run_dir, scenario)
    disk.require_room()
    (run_dir / "scenario.yaml").write_text(scenario.resolved_yaml())
    log_dir = run_dir / "logs"
    log_dir.mkdir()
    janitor = Janitor()
    with contextlib.ExitStack() as ending:
        ending.callback(janitor.dismiss)
        observer.stage("starting Ray" if address is None else f"connecting to Ray at {address}")
        ending.enter_context(_ray(interrupts, address, janitor, expected_actors(scenario, hosting)))
        waiting_since_s = time.monotonic()
        found = joined_machines(at_least, observer.stage)
        started_s += time.monotonic() - waiting_since_s
        surveyed = survey(scenario, found, hosting)
        folders = MachineFolders(log_dir, janitor.folder, janitor.run_id)
        course = _Run(scenario, run_dir, disk, observer, interrupts, started_s)
        summary = asyncio.run(course.carry_out(surveyed, folders))
        interrupts.nothing_left()
        return summary


@contextlib.contextmanager
def _ray(interrupts: Interrupts, address: str | None, janitor: Janitor, processes: int) -> Iterator[None]:
    """Ray's session. While it starts, Ray takes SIGTERM for itself and answers it with SystemExit."""
    with contextlib.ExitStack() as session:
        try:
            session.enter_context(ray_session(address, janitor, processes))
        except SystemExit:
            interrupts.install()
            interrupts.interrupt()
        interrupts.install()
        yield


def expected_actors(scenario: Scenario, hosting: Hosting | None = None) -> int:
    """How many actors a run on one machine will have: the master, one a node, one an origin zone, and for each pod one
    or two, unless its node hosts it."""
    places = 1 + len(scenario.topology.nodes) + len({source.zone for source in scenario.load.sources})
    if (hosting or hosting_for(scenario.cluster, machines=1)) == "node":
        return places
    return places + sum(
        deployment.replicas * ((deployment.template.workload is not None) + deployment.template.has_proxy)
        for deployment in scenario.cluster.deployments
    )


class _Run:
    def __init__(
        self,
        scenario: Scenario,
        run_dir: Path,
        disk: RunDisk,
        observer: Observer,
        interrupts: Interrupts,
        started_s: float,
    ) -> None:
        self._scenario = scenario
        self._run_dir = run_dir
        self._disk = disk
        self._observer = observer
        self._interrupts = interrupts
        self._course = _Course()
        self._started_s = started_s
        self._interrupt = asyncio.Event()

    async def carry_out(self, surveyed: Survey, folders: MachineFolders) -> Summary:
        async with Fleet.assembled(self._scenario, surveyed, folders) as fleet:
            loop = asyncio.get_running_loop()
            with self._interrupts.heard_by(lambda: loop.call_soon_threadsafe(self._interrupted)):
                return await self._on(fleet, surveyed.hosting)

    async def _on(self, fleet: Fleet, hosting: Hosting) -> Summary:
        course, scenario = self._course, self._scenario
        nodes, pods = len(scenario.topology.nodes), sum(d.replicas for d in scenario.cluster.deployments)
        names = ", ".join(member.name for member in fleet.members)
        where = "" if len(fleet.members) == 1 else f" on {len(fleet.members)} machines ({names})"
        hosts = "in actors of their own" if hosting == "actor" else "hosted by their nodes' agents"
        self._observer.stage(
            f"{scenario.name}: bringing up {nodes} nodes and {pods} pods{where} "
            f"({scenario.profile} profile, seed {scenario.seed}; pods {hosts})"
        )
        cluster = EmulatedCluster(scenario, fleet, hosting)
        await self._unless_interrupted(self._brought_up(cluster))
        course.ready_s = time.monotonic() - self._started_s
        self._observer.stage(f"ready after {course.ready_s:.1f} s; starting Locust")
        await self._unless_interrupted(cluster.prepare_load())
        await fleet.start_sampling()
        injection = await self._load(fleet, cluster)
        records = await self._brought_home(fleet, cluster)
        return self._kept(fleet, injection, records)

    async def _brought_up(self, cluster: EmulatedCluster) -> None:
        def show(how_far: str) -> None:
            self._disk.require_room()
            self._observer.doing(how_far)

        await cluster.bring_up(show)

    async def _load(self, fleet: Fleet, cluster: EmulatedCluster) -> Injection:
        """Send load and carry out the faults until the end, an interrupt, or something that breaks the run."""
        course, load, topology = self._course, self._scenario.load, self._scenario.topology
        course.t0_s = time.monotonic() + START_LEAD_S
        injection = Injection(self._scenario.faults, topology, cluster.world, course.t0_s, self._observer.fault)
        faults = asyncio.create_task(injection.carry_out())
        end = asyncio.create_task(self._end(fleet, cluster, injection))
        interrupt = asyncio.create_task(self._interrupt.wait())
        with self._surviving("sending load"):
            await cluster.start_load(course.t0_s)
            self._observer.stage(f"sending load for {load.duration_s:g} s")
            await asyncio.wait({end, interrupt}, return_when=asyncio.FIRST_COMPLETED)
            if end.done() and (why := end.result()) is not None:
                self._break(why)
        for task in (faults, end, interrupt):
            task.cancel()
        course.interrupted = self._interrupt.is_set()
        course.end_s = time.monotonic()
        return injection

    async def _end(self, fleet: Fleet, cluster: EmulatedCluster, injection: Injection) -> str | None:
        """Returns when the load has ended by itself, or with what has broken the run."""
        course, load = self._course, self._scenario.load
        while True:
            await asyncio.sleep(POLL_S)
            progress = await cluster.load_progress()
            await cluster.collect()
            self._disk.require_room()
            t_s = time.monotonic() - course.t0_s
            self._observer.load(t_s, load.duration_s, progress)
            if errors := [each.error for each in progress.values() if each.error is not None]:
                # Its zone has no count of Locust's own then, which makes the run invalid.
                self._observer.stage("; ".join(errors))
                return None
            if fleet.lost:
                names = ", ".join(member.name for member in fleet.lost)
                self._observer.stage(f"machine lost: {names}; keeping what was measured")
                return None
            if broken := cluster.failure or fleet.failure or injection.failure:
                return broken
            if all(each.done is not None for each in progress.values()):
                return injection.overdue(t_s)

    async def _brought_home(self, fleet: Fleet, cluster: EmulatedCluster) -> ClusterRecords:
        """End the load and all processes, and collect what was recorded: as much as still can be."""
        course, records = self._course, ClusterRecords([], [], [], ())
        with self._surviving("ending the load"):
            await cluster.stop_load()
            progress = await cluster.load_progress()
            course.locust = {zone: each.done for zone, each in progress.items() if each.done is not None}
        self._observer.stage("load has ended; collecting what was recorded")
        await asyncio.sleep(FLUSH_S)
        with self._surviving("ending the cluster's processes"):
            await cluster.shut_down()
        with self._surviving("collecting the cluster's records"):
            records = await cluster.records()
        with self._surviving("collecting the machines' records"):
            await fleet.collect()
        for failure in (cluster.failure, fleet.failure):
            if failure is not None:
                self._break(failure)
        return records

    def _kept(self, fleet: Fleet, injection: Injection, records: ClusterRecords) -> Summary:
        """Everything written down."""
        t0_s = self._course.t0_s
        unread: tuple[UnreadLines, ...] = ()
        with self._surviving("writing the tables"):
            written = record(
                self._run_dir,
                fleet.driver.table_clock(t0_s),
                lambda place: fleet.of(place).table_clock(t0_s),
                self._scenario.topology,
                records,
                fleet.samples(),
            )
            unread = written.unread
            if written.lost:
                self._break(f"{self._disk.name} is full; lost: {', '.join(written.lost)}")
        with self._disk.blamed("the facts and the summary of the run, which take the report with them"):
            self._facts(fleet.facts(t0_s), injection, unread).save(self._run_dir)
            return summarize(self._run_dir)

    def _facts(
        self, machine_facts: tuple[MachineFacts, ...], injection: Injection, unread: tuple[UnreadLines, ...]
    ) -> RunFacts:
        course, scenario = self._course, self._scenario
        return RunFacts(
            name=scenario.name,
            seed=scenario.seed,
            profile=scenario.profile,
            warmup_s=scenario.load.warmup_s,
            end_s=max(0.0, min(course.end_s - course.t0_s, scenario.load.duration_s)),
            ready_s=course.ready_s,
            sources=scenario.load.sources,
            faults=injection.applied(),
            expectations=scenario.expectations,
            prices=scenario.prices,
            cities=scenario.cities,
            backups=scenario.backups,
            expected=scenario.expected,
            locust=course.locust,
            killed_proxies=injection.killed_proxies(),
            machines=machine_facts,
            unread=unread,
            interrupted=course.interrupted,
            broken="; ".join(course.broken) or None,
        )

    @contextlib.contextmanager
    def _surviving(self, doing: str) -> Iterator[None]:
        """Whatever goes wrong in the block makes the run invalid, and takes nothing with it that was measured."""
        try:
            yield
        except (MachineLost, ActorLost, DiskFull) as failure:
            self._break(str(failure))
        except Exception as defect:
            with contextlib.suppress(OSError), (self._run_dir / "logs" / DEFECTS).open("a") as log:
                traceback.print_exception(defect, file=log)
            self._break(f"{doing} failed: {in_short(defect)}")

    def _break(self, why: str) -> None:
        if why not in self._course.broken:
            self._course.broken.append(why)
            self._observer.stage(f"{why}; keeping what was measured")

    def _interrupted(self) -> None:
        self._interrupt.set()
        if self._course.t0_s:
            self._observer.stage("interrupted: keeping what was measured; once more to end at once")

    async def _unless_interrupted(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        interrupt = asyncio.create_task(self._interrupt.wait())
        await asyncio.wait({task, interrupt}, return_when=asyncio.FIRST_COMPLETED)
        interrupt.cancel()
        if not task.done():
            task.cancel()
            raise RunInterrupted("interrupted before the load began: nothing was measured")
        task.result()
