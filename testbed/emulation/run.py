"""One run from nothing to a result folder: Ray, cluster, load, faults on time, records, summary.

Drives; the cluster's actors act, `results` remembers and judges. What was measured is kept however the run ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from testbed.control.placement import Hosting, hosting_for
from testbed.emulation.cluster import ClusterRecords, EmulatedCluster
from testbed.emulation.fleet import Fleet, Survey, joined_machines, survey
from testbed.emulation.janitor import RUN_PREFIX, Janitor
from testbed.emulation.load_generator import LoadProgress
from testbed.emulation.member import ActorDied, MachineLost
from testbed.emulation.power_off import PowerOffFailed
from testbed.emulation.ray_session import ray_session
from testbed.emulation.recording import record
from testbed.emulation.reports import MachineFolders, Readiness
from testbed.faults.actions import PowerOffMachine
from testbed.faults.machines import MachinePowerOff
from testbed.faults.schedule import Step, steps
from testbed.results.facts import AppliedFault, LocustCount, MachineFacts, RunFacts
from testbed.results.summary import Summary, summarize
from testbed.scenario import Scenario

START_LEAD_S = 0.5
"""From the order to start until the first request: long enough for every load generator to have heard it."""
FAULT_LEAD_S = 0.3
"""How long before its time a fault is announced to its victims."""
OVERDUE_S = 1.0
"""More than any fault or heal is late that will still come."""
FLUSH_S = 0.3
"""Envoy writes its access log out every 200 ms."""


class Observer(Protocol):
    """Whoever watches a run. Times in seconds since the load began."""

    def stage(self, text: str) -> None: ...

    def readiness(self, readiness: Readiness) -> None: ...

    def fault(self, t_s: float, name: str, what: str) -> None: ...

    def load(self, t_s: float, duration_s: float, zones: dict[str, LoadProgress]) -> None: ...


class RunInterrupted(Exception):
    """The user ended the run before there was anything to measure."""


@dataclass(slots=True)
class _Course:
    """What happened in this run so far. Monotonic seconds."""

    ready_s: float = 0.0
    t0_s: float | None = None
    end_s: float | None = None
    applied: dict[str, float] = field(default_factory=dict)
    healed: dict[str, float] = field(default_factory=dict)
    killed_proxies: list[tuple[str, float]] = field(default_factory=list)
    locust: dict[str, LocustCount] = field(default_factory=dict)
    interrupted: bool = False
    broken: str | None = None


def run(
    scenario: Scenario,
    run_dir: Path,
    observer: Observer,
    address: str | None,
    at_least: int,
    hosting: Hosting | None = None,
) -> Summary:
    """Carry out the scenario and leave everything in `run_dir`, which must exist; returns the summary.

    Without an `address` Ray is started on this machine; with one, so many machines `at_least` must have joined it.
    Without a `hosting` the number of pods a machine decides.
    Raises BringUpFailed, RayUnreachable, PlacementImpossible, FleetUnfit, MachineLost, AddressesExhausted,
    LoadGeneratorFailed or RunInterrupted where there was nothing to measure.
    """
    started_s = time.monotonic()
    (run_dir / "scenario.yaml").write_text(scenario.resolved_yaml())
    log_dir = run_dir / "logs"
    log_dir.mkdir()
    # Unix sockets have short paths; the run folder may have a long one.
    socket_dir = Path(tempfile.mkdtemp(prefix=RUN_PREFIX))
    janitor = Janitor(socket_dir.name, socket_dir)
    try:
        with ray_session(address, socket_dir.name, expected_actors(scenario, hosting)):
            # Ray has just taken it for itself. Until `_interruptible`, it ends a run as Ctrl-C does.
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            waiting_since_s = time.monotonic()
            found = joined_machines(at_least, observer.stage)
            started_s += time.monotonic() - waiting_since_s
            surveyed = survey(scenario, found, hosting)
            folders = MachineFolders(log_dir, socket_dir, socket_dir.name)
            return asyncio.run(_Run(scenario, run_dir, observer, started_s).carry_out(surveyed, folders))
    finally:
        janitor.dismiss()


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
    def __init__(self, scenario: Scenario, run_dir: Path, observer: Observer, started_s: float) -> None:
        self._scenario = scenario
        self._run_dir = run_dir
        self._observer = observer
        self._course = _Course()
        self._started_s = started_s
        self._interrupt = asyncio.Event()

    async def carry_out(self, surveyed: Survey, folders: MachineFolders) -> Summary:
        async with Fleet.assembled(self._scenario, surveyed, folders) as fleet:
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
        async with self._interruptible():
            cluster = EmulatedCluster(scenario, fleet, hosting)
            await self._unless_interrupted(cluster.bring_up(self._observer.readiness))
            course.ready_s = time.monotonic() - self._started_s
            self._observer.stage(f"ready after {course.ready_s:.1f} s; starting Locust")
            await self._unless_interrupted(cluster.prepare_load())
            await fleet.start_sampling()
            try:
                await self._load(fleet, cluster)
            finally:
                course.end_s = time.monotonic()
                await cluster.stop_load()
                course.locust = {
                    zone: progress.done
                    for zone, progress in (await cluster.load_progress()).items()
                    if progress.done is not None
                }
            self._observer.stage("load has ended; collecting what was recorded")
            await asyncio.sleep(FLUSH_S)
            await cluster.shut_down()
            records = await cluster.records()
            await fleet.collect()
            return self._kept(fleet, records)

    def _kept(self, fleet: Fleet, records: ClusterRecords) -> Summary:
        """Everything written down."""
        t0_s = self._course.t0_s
        assert t0_s is not None
        record(
            self._run_dir,
            fleet.driver.table_clock(t0_s),
            lambda place: fleet.of(place).table_clock(t0_s),
            self._scenario.topology,
            records,
            fleet.samples(),
        )
        self._facts(fleet.facts(t0_s)).save(self._run_dir)
        return summarize(self._run_dir)

    async def _load(self, fleet: Fleet, cluster: EmulatedCluster) -> None:
        """Send load and carry out the faults until the end, an interrupt, a lost machine or a broken load generator."""
        course, load = self._course, self._scenario.load
        course.t0_s = t0_s = time.monotonic() + START_LEAD_S
        await cluster.start_load(t0_s)
        self._observer.stage(f"sending load for {load.duration_s:g} s")
        faults = asyncio.create_task(self._faults(cluster, t0_s))
        try:
            while not self._interrupt.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._interrupt.wait(), 1.0)
                progress = await cluster.load_progress()
                await cluster.collect()
                self._observer.load(time.monotonic() - t0_s, load.duration_s, progress)
                if errors := [each.error for each in progress.values() if each.error is not None]:
                    # Its zone has no count of Locust's own then, which makes the run invalid.
                    self._observer.stage("; ".join(errors))
                    break
                if fleet.lost:
                    names = ", ".join(member.name for member in fleet.lost)
                    self._observer.stage(f"machine lost: {names}; keeping what was measured")
                    break
                course.broken = fleet.failure or cluster.failure or self._failed(faults)
                if course.broken is not None:
                    self._observer.stage(f"{course.broken}; keeping what was measured")
                    break
                if all(each.done is not None for each in progress.values()):
                    course.broken = self._overdue(time.monotonic() - t0_s)
                    break
        finally:
            faults.cancel()
        course.interrupted = self._interrupt.is_set()
        if course.interrupted:
            self._observer.stage("interrupted: keeping what was measured")

    @staticmethod
    def _failed(faults: asyncio.Task[None]) -> str | None:
        """Why a fault could not be carried out, if so; what is no fault's fault is raised."""
        failure = faults.exception() if faults.done() else None
        if isinstance(failure, PowerOffFailed | MachineLost | ActorDied):
            return str(failure)
        if failure is not None:
            raise failure
        return None

    def _overdue(self, t_s: float) -> str | None:
        """Which fault or heal was due for long, and has not come."""
        for fault in self._scenario.faults:
            if fault.name not in self._course.applied and fault.at_s < t_s - OVERDUE_S:
                return f"fault {fault.name} was due at {fault.at_s:g} s and has not come"
            heal_s = None if fault.for_s is None else fault.at_s + fault.for_s
            if heal_s is not None and fault.name not in self._course.healed and heal_s < t_s - OVERDUE_S:
                return f"the heal of fault {fault.name} was due at {heal_s:g} s and has not come"
        return None

    async def _faults(self, cluster: EmulatedCluster, t0_s: float) -> None:
        """Steps one after the other, but those that take a time of their own, as powering a machine off."""
        apart: list[asyncio.Task[None]] = []
        try:
            for step in steps(self._scenario.faults, self._scenario.topology):
                await asyncio.sleep(t0_s + step.at_s - FAULT_LEAD_S - time.monotonic())
                work = self._step(cluster, step, t0_s)
                if any(isinstance(action, PowerOffMachine) for action in step.actions):
                    apart.append(asyncio.create_task(work))
                else:
                    await work
            await asyncio.gather(*apart)
        finally:
            for task in apart:
                task.cancel()

    async def _step(self, cluster: EmulatedCluster, step: Step, t0_s: float) -> None:
        effect = await cluster.carry_out(step.actions, t0_s + step.at_s)
        times = self._course.applied if step.phase == "start" else self._course.healed
        times[step.fault] = effect.at_s
        self._course.killed_proxies += effect.killed_proxies
        self._observer.fault(effect.at_s - t0_s, step.fault, "applied" if step.phase == "start" else "healed")

    def _facts(self, machine_facts: tuple[MachineFacts, ...]) -> RunFacts:
        course, scenario = self._course, self._scenario
        t0_s, end_s = course.t0_s, course.end_s
        assert t0_s is not None
        assert end_s is not None
        return RunFacts(
            name=scenario.name,
            seed=scenario.seed,
            profile=scenario.profile,
            warmup_s=scenario.load.warmup_s,
            end_s=max(0.0, min(end_s - t0_s, scenario.load.duration_s)),
            ready_s=course.ready_s,
            sources=scenario.load.sources,
            faults=tuple(
                AppliedFault(
                    fault.name,
                    fault.at_s,
                    course.applied[fault.name] - t0_s,
                    course.healed[fault.name] - t0_s if fault.name in course.healed else None,
                    None if fault.for_s is None else fault.at_s + fault.for_s,
                    instant=fault.for_s is None,
                    by_command=isinstance(fault.fault, MachinePowerOff),
                )
                for fault in scenario.faults
                if fault.name in course.applied
            ),
            expectations=scenario.expectations,
            locust=course.locust,
            killed_proxies=tuple((pod, at_s - t0_s) for pod, at_s in course.killed_proxies),
            machines=machine_facts,
            interrupted=course.interrupted,
            broken=course.broken,
        )

    @contextlib.asynccontextmanager
    async def _interruptible(self) -> AsyncIterator[None]:
        """The first Ctrl-C or SIGTERM ends the run in good order, the second at once."""
        loop = asyncio.get_running_loop()

        def interrupt() -> None:
            if self._interrupt.is_set():
                os._exit(130)  # the janitor ends what is left
            self._interrupt.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, interrupt)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    async def _unless_interrupted(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        interrupt = asyncio.create_task(self._interrupt.wait())
        await asyncio.wait({task, interrupt}, return_when=asyncio.FIRST_COMPLETED)
        interrupt.cancel()
        if not task.done():
            task.cancel()
            raise RunInterrupted("interrupted before the load began: nothing was measured")
        task.result()
