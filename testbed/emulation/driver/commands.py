"""What a person asks of a cluster that is up, and what is answered: one method for each command.

Arguments and answers are plain data, as they travel over the `channel`. Whatever cannot be done is Declined, and
changes nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from testbed.control.api_server import Refused
from testbed.documents.problems import ScenarioError
from testbed.emulation.actors.load_generator import LoadGeneratorFailed
from testbed.emulation.driver.channel import Declined
from testbed.emulation.driver.cluster import BringUpFailed
from testbed.emulation.driver.events import (
    ChangeBegun,
    FaultApplied,
    FaultHealed,
    GuestsWelcome,
    LoadEnded,
    LoadReported,
    LoadStarted,
    SessionEvent,
)
from testbed.emulation.driver.injection import Injection
from testbed.emulation.driver.ray_connection import RayMachine
from testbed.emulation.driver.session import Session
from testbed.emulation.driver.survey import FleetUnfit, require_breakable
from testbed.emulation.driver.world import FAULT_LEAD_S
from testbed.faults.effects import Effect
from testbed.faults.pods import PodKill
from testbed.faults.timeline import ScheduledFault
from testbed.results.tables.facts import named
from testbed.scenario import Scenario
from testbed.scenario.amendments import changed, difference, faults_of

START_LEAD_S = 0.5
"""From the order to start until the first request: long enough for every load generator to have heard it."""
POLL_S = 0.02


class _Forbearing:
    """A session for faults that come by themselves, where a person may have healed one before its time."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def inject(self, fault: str, effects: Sequence[Effect], due_s: float) -> None:
        await self._session.inject(fault, effects, due_s)

    async def heal(self, fault: str, due_s: float) -> None:
        if fault in self._session.in_force:
            await self._session.heal(fault, due_s)


class Commands:
    """Of one session that is up. `hear` is a watcher."""

    def __init__(
        self, session: Session, scenario: Scenario, machines: Sequence[RayMachine], run_dir: Path, t0_s: float
    ) -> None:
        self.scenario = scenario
        """As it is by now."""
        self._session = session
        self._machines = machines
        self._run_dir = run_dir
        self._t0_s = t0_s
        self._named: set[str] = set()
        """Every fault and change so far."""
        self._applied: dict[str, FaultApplied] = {}
        self._healed: dict[str, FaultHealed] = {}
        self._load: LoadStarted | None = None
        self._reported: LoadReported | None = None
        self._welcome: GuestsWelcome | None = None
        self._injections: dict[asyncio.Task[None], Injection] = {}
        self._one_load = asyncio.Lock()
        self._one_change = asyncio.Lock()

    def hear(self, event: SessionEvent) -> None:
        match event:
            case FaultApplied(fault):
                self._applied[fault] = event
            case FaultHealed(fault):
                self._healed[fault] = event
            case ChangeBegun(change):
                self._named.add(change)
            case LoadStarted():
                self._load = event
            case LoadReported():
                self._reported = event
            case LoadEnded():
                self._load = None
            case GuestsWelcome():
                self._welcome = event

    @property
    def sends_load(self) -> bool:
        """Whether load was started that is declared."""
        return self._load is not None

    @property
    def failure(self) -> str | None:
        """Why a fault could not be carried out, if so."""
        return next((each.failure for each in self._injections.values() if each.failure is not None), None)

    async def status(self) -> dict[str, Any]:
        """Nodes, pods, load and faults."""
        overview, now_s = await self._session.overview(), time.monotonic()
        return {
            "up_s": now_s - self._t0_s,
            "nodes": [asdict(node) for node in overview.nodes],
            "pods": [asdict(pod) for pod in overview.pods],
            "load": self._load_status(now_s),
            "locust": self._welcomed(),
            "faults": [
                {"name": name, "for_s": now_s - self._applied[name].impact.at_s, "victims": self._victims(name)}
                for name in self._session.in_force
                if name in self._applied
            ],
        }

    def _welcomed(self) -> dict[str, dict[str, str | None]]:
        """By origin zone: how a Locust of the user's own is started, where the page is of the one that is there, and
        on which machine both, if not on the driver's."""
        if (welcome := self._welcome) is None:
            return {}
        return {
            zone: {"line": line, "page": welcome.pages.get(zone), "machine": welcome.machines.get(zone)}
            for zone, line in welcome.lines.items()
        }

    def _load_status(self, now_s: float) -> dict[str, Any] | None:
        zones = {} if self._reported is None else self._reported.zones
        sending = {zone: each for zone, each in zones.items() if each.t_s > 0}
        if self._load is None and not sending:
            return None
        return {
            "declared": self._load is not None,
            "for_s": None if self._load is None else max(0.0, now_s - self._load.t0_s),
            "requests_per_s": {zone: each.sent_per_s for zone, each in sending.items()},
            "p99_ms": max((each.p99_ms for each in sending.values()), default=None),
            "not_ok": sum(each.failed + each.unknown for each in zones.values()),
        }

    def _victims(self, fault: str) -> list[str]:
        return list(self._applied[fault].impact.victims)

    async def inject(self, file: str, text: str) -> dict[str, Any]:
        """Faults of a text in the scenario's language. Answers when those are there that come at once."""
        try:
            given = await asyncio.to_thread(faults_of, file, text, self.scenario)
        except ScenarioError as error:
            raise Declined(str(error)) from error
        try:
            require_breakable(replace(self.scenario, faults=given), self._machines)
        except FleetUnfit as error:
            raise Declined(str(error)) from error
        await self._require_victims(given)
        faults = [replace(fault, name=self._new_name(fault.name)) for fault in given]
        injection = Injection(
            faults, self.scenario.topology, _Forbearing(self._session), time.monotonic() + FAULT_LEAD_S
        )
        task = asyncio.create_task(injection.carry_out())
        self._injections[task] = injection
        at_once = [fault.name for fault in faults if fault.at_s == 0]
        while not all(name in self._applied for name in at_once) and not task.done():
            if injection.failure is not None:
                raise Declined(injection.failure)
            await asyncio.sleep(POLL_S)
        return {"faults": [self._injected(fault) for fault in faults]}

    async def _require_victims(self, faults: Sequence[ScheduledFault]) -> None:
        pods = [pod.name for pod in (await self._session.overview()).pods]
        for each in faults:
            if isinstance(each.fault, PodKill) and each.fault.pod is not None and each.fault.pod not in pods:
                raise Declined(f"fault {each.name}: there is no pod {each.fault.pod}; there are {', '.join(pods)}")

    def _injected(self, fault: ScheduledFault) -> dict[str, Any]:
        applied = self._applied.get(fault.name)
        return {
            "name": fault.name,
            "in_s": None if applied is not None else fault.at_s,
            "for_s": fault.for_s,
            "hit": None if applied is None else named(applied.impact.victims) or applied.impact.hit_nothing,
        }

    def _new_name(self, wanted: str) -> str:
        """What happens twice has two names, so that each has its own place in the report."""
        name, number = wanted, 1
        while name in self._named:
            number += 1
            name = f"{wanted}-{number}"
        self._named.add(name)
        return name

    async def heal(self, fault: str) -> dict[str, Any]:
        """Answers when it is undone."""
        in_force = self._session.in_force
        if fault not in in_force or fault not in self._applied:
            others = ", ".join(in_force)
            raise Declined(f"no fault {fault} is in force; there is {others}" if others else "no fault is in force")
        await self._session.heal(fault)
        return {"fault": fault, "lasted_s": self._healed[fault].at_s - self._applied[fault].impact.at_s}

    async def apply(self, file: str, text: str, folder: str, overrides: list[str]) -> dict[str, Any]:
        """The difference to another version of the scenario. Answers when all is as declared, if no fault keeps it."""
        async with self._one_change:
            try:
                wanted = await asyncio.to_thread(changed, file, text, Path(folder), overrides, self.scenario)
            except ScenarioError as error:
                raise Declined(str(error)) from error
            objects, gone = difference(self.scenario, wanted)
            warnings = [str(problem) for problem in wanted.warnings]
            if not objects and not gone:
                self.scenario = wanted
                return {"change": None, "applied": [], "deleted": [], "settled": True, "warnings": warnings}
            name = self._new_name("apply")
            try:
                await self._session.change(name, objects, gone)
            except Refused as refusal:
                raise Declined(str(refusal)) from refusal
            self.scenario = wanted
            (self._run_dir / f"{name}.yaml").write_text(wanted.resolved_yaml())
            answer = {
                "change": name,
                "applied": [f"{type(each).__name__} {each.name}" for each in objects],
                "deleted": [f"{type(each).__name__} {each.name}" for each in gone],
                "warnings": warnings,
            }
            if self._session.in_force:
                return {**answer, "settled": False, "why": f"{', '.join(self._session.in_force)} is in force"}
            try:
                await self._session.settle(name)
            except BringUpFailed as failure:
                return {**answer, "settled": False, "why": str(failure)}
            return {**answer, "settled": True}

    async def load(self, do: str) -> dict[str, Any]:
        """Start or stop the load that is declared."""
        async with self._one_load:
            if do == "start":
                if self.sends_load:
                    raise Declined("load is being sent already")
                try:
                    await self._session.prepare_load()
                except LoadGeneratorFailed as failure:
                    raise Declined(str(failure)) from failure
                await self._session.start_load(time.monotonic() + START_LEAD_S)
                return {}
            if not self.sends_load:
                raise Declined("no load is being sent")
            await self._session.stop_load()
            return {}

    async def end(self) -> None:
        """Nothing comes by itself any more."""
        for task in self._injections:
            task.cancel()
        if self.sends_load:
            async with self._one_load:
                await self._session.stop_load()
