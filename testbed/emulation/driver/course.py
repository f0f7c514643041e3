"""What has happened in a session so far, heard from its events: what the facts of a run are made of."""

from __future__ import annotations

from collections.abc import Iterator

from testbed.control.cells.ownership import written
from testbed.emulation.driver.events import (
    Broken,
    FaultApplied,
    FaultHealed,
    Interrupted,
    LoadEnded,
    LoadStarted,
    LoadStopping,
    MapChanged,
    MapDelivered,
    Ready,
    SessionEvent,
)
from testbed.results.tables.facts import AppliedFault, LocustCount, MachineFacts, MapStep, RunFacts, UnreadLines
from testbed.scenario import Scenario

OVERDUE_S = 1.0
"""More than any fault or heal is late that will still come."""


class Course:
    """Of one scenario's run. `hear` is a watcher."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._ready_s = 0.0
        self._t0_s = 0.0
        self._end_s: float | None = None
        self._locust: dict[str, LocustCount] = {}
        self._applied: dict[str, FaultApplied] = {}
        self._healed: dict[str, FaultHealed] = {}
        self._maps: list[MapChanged] = []
        self._deliveries: list[MapDelivered] = []
        self._broken: list[str] = []
        self._interrupted = False

    def hear(self, event: SessionEvent) -> None:
        match event:
            case Ready(after_s):
                self._ready_s = after_s
            case LoadStarted(t0_s):
                self._t0_s = t0_s
            case LoadStopping(at_s):
                self._end_s = at_s
            case LoadEnded(counts):
                self._locust = dict(counts)
            case FaultApplied(fault):
                self._applied[fault] = event
            case FaultHealed(fault):
                self._healed[fault] = event
            case MapChanged():
                self._maps.append(event)
            case MapDelivered():
                self._deliveries.append(event)
            case Broken(why):
                self._broken.append(why)
            case Interrupted() if self._end_s is None:
                self._interrupted = True

    def overdue(self, now_s: float) -> str | None:
        """Which fault or heal of the scenario was due for long (now is monotonic seconds), and has not come."""
        late_s = now_s - self._t0_s - OVERDUE_S
        for fault in self._scenario.faults:
            if fault.name not in self._applied and fault.at_s < late_s:
                return f"fault {fault.name} was due at {fault.at_s:g} s and has not come"
            if fault.heal_s is not None and fault.name not in self._healed and fault.heal_s < late_s:
                return f"the heal of fault {fault.name} was due at {fault.heal_s:g} s and has not come"
        return None

    def facts(self, machines: tuple[MachineFacts, ...], unread: tuple[UnreadLines, ...]) -> RunFacts:
        """Of a run whose load has been stopped."""
        scenario, load = self._scenario, self._scenario.load
        assert self._end_s is not None
        return RunFacts(
            name=scenario.name,
            seed=scenario.seed,
            profile=scenario.profile,
            warmup_s=load.warmup_s,
            end_s=max(0.0, min(self._end_s - self._t0_s, load.duration_s)),
            ready_s=self._ready_s,
            sources=load.sources,
            faults=(*self._faults(), *self._operations()),
            expectations=scenario.expectations,
            prices=scenario.prices,
            cities=scenario.cities,
            backups=scenario.backups,
            cross_cell=scenario.cross_cell,
            expected=scenario.expected,
            recovery=scenario.recovery,
            routes=scenario.routes,
            locust=self._locust,
            killed_proxies=tuple(
                (pod, at_s - self._t0_s)
                for applied in self._applied.values()
                for pod, at_s in applied.impact.killed_proxies
            ),
            machines=machines,
            unread=unread,
            interrupted=self._interrupted,
            broken="; ".join(self._broken) or None,
        )

    def _faults(self) -> tuple[AppliedFault, ...]:
        """Every fault of the scenario that came."""
        return tuple(
            AppliedFault(
                fault.name,
                fault.at_s,
                impact.at_s - self._t0_s,
                None if (healed := self._healed.get(fault.name)) is None else healed.at_s - self._t0_s,
                fault.heal_s,
                instant=fault.for_s is None,
                by_command=impact.by_command,
                victims=impact.victims,
                hit_nothing=impact.hit_nothing,
            )
            for fault in self._scenario.faults
            if fault.name in self._applied
            for impact in (self._applied[fault.name].impact,)
        )

    def _operations(self) -> Iterator[AppliedFault]:
        """Every operation of the scenario that began."""
        for operation in self._scenario.operations:
            steps = tuple(self._step(each) for each in self._maps if each.step.operation == operation.name)
            if not steps:
                continue
            last = steps[-1] if len(steps) > 1 else None
            over = last is not None and (last.reverts or (operation.for_s is None and last.number == last.of))
            yield AppliedFault(
                operation.name,
                operation.at_s,
                steps[0].applied_s,
                last.applied_s if last is not None and over else None,
                instant=len(operation.steps) == 1 and operation.for_s is None,
                steps=steps,
            )

    def _step(self, change: MapChanged) -> MapStep:
        step = change.step
        delivered = [each for each in self._deliveries if each.step == step]
        return MapStep(
            step.number,
            step.of,
            step.reverts,
            step.at_s,
            change.at_s - self._t0_s,
            change.version,
            written(step.change.partitions),
            {each.layer: None if each.at_s is None else each.at_s - self._t0_s for each in delivered},
            tuple(dict.fromkeys(pod for each in delivered for pod in each.missing)),
            tuple(sorted(step.lent)),
            step.gives_up,
            step.change.moves,
        )
