"""What has happened in a session so far, heard from its events: what the facts of a run are made of.

A run is as long as its load, and its faults are the scenario's. A session that a person drives is as long as that
person wants, with load now and then, and what is done in it is known by what was heard.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

from testbed.control.cells.ownership import written
from testbed.emulation.driver.events import (
    BringingUp,
    Broken,
    ChangeBegun,
    ChangeSettled,
    DataPromoted,
    FaultApplied,
    FaultHealed,
    GoingDown,
    GuestsLeft,
    Interrupted,
    LoadEnded,
    LoadStarted,
    LoadStopping,
    MapChanged,
    MapDelivered,
    Ready,
    SessionEvent,
    TimeBegins,
    WritesHeld,
)
from testbed.results.tables.facts import (
    AppliedFault,
    HeldWrites,
    LocustCount,
    MachineFacts,
    MapStep,
    PromotedData,
    RunFacts,
    UnreadLines,
)
from testbed.scenario import Expectation, Scenario

OVERDUE_S = 1.0
"""More than any fault or heal is late that will still come."""


class Course:
    """Of one scenario's run. `hear` is a watcher."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._hosting = ""
        self._ready_s = 0.0
        self._t0_s = 0.0
        self._end_s: float | None = None
        self._by_hand = False
        self._sending: list[tuple[float, float]] = []
        """From when to when the load was sent that is declared."""
        self._changes: dict[str, ChangeBegun] = {}
        self._settled: dict[str, float] = {}
        self._uncounted: set[str] = set()
        """Zones of which some Locust has not said what it counted."""
        self._locust: dict[str, LocustCount] = {}
        self._applied: dict[str, FaultApplied] = {}
        self._healed: dict[str, FaultHealed] = {}
        self._maps: list[MapChanged] = []
        self._deliveries: list[MapDelivered] = []
        self._promoted: list[DataPromoted] = []
        self._held: list[WritesHeld] = []
        self._broken: list[str] = []
        self._interrupted = False

    def hear(self, event: SessionEvent) -> None:
        match event:
            case BringingUp():
                self._hosting = event.hosting
            case Ready(after_s):
                self._ready_s = after_s
            case TimeBegins(t0_s):
                self._by_hand, self._t0_s = True, t0_s
            case LoadStarted(t0_s):
                self._t0_s = self._t0_s if self._by_hand else t0_s
                self._sending.append((t0_s, math.inf))
            case LoadStopping(at_s):
                self._end_s = at_s
                if self._sending:
                    self._sending[-1] = (self._sending[-1][0], at_s)
            case LoadEnded(counts):
                self._add(counts)
            case GuestsLeft(counts, uncounted):
                self._add(counts)
                self._uncounted |= uncounted.keys()
            case ChangeBegun(change):
                self._changes[change] = event
            case ChangeSettled(change, at_s):
                self._settled[change] = at_s
            case GoingDown(at_s):
                self._end_s = at_s
            case FaultApplied(fault):
                self._applied[fault] = event
            case FaultHealed(fault):
                self._healed[fault] = event
            case DataPromoted():
                self._promoted.append(event)
            case WritesHeld():
                self._held.append(event)
            case MapChanged():
                self._maps.append(event)
            case MapDelivered():
                self._deliveries.append(event)
            case Broken(why):
                self._broken.append(why)
            case Interrupted() if self._end_s is None:
                self._interrupted = True

    def _add(self, counts: Mapping[str, LocustCount]) -> None:
        for zone, count in counts.items():
            self._locust[zone] = self._locust[zone].plus(count) if zone in self._locust else count

    def amended(self, scenario: Scenario) -> None:
        """A person has changed what is declared; expectations are those of the last version."""
        self._scenario = replace(scenario, load=self._scenario.load)

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
        faults = (*self._faults(), *self._applied_changes(), *self._operations())
        began = bool(self._sending) or not self._by_hand
        sending = tuple(
            (from_s - self._t0_s, min(to_s, self._end_s) - self._t0_s)
            for from_s, to_s in self._sending
            if self._by_hand
        )
        return RunFacts(
            name=scenario.name,
            seed=scenario.seed,
            profile=scenario.profile,
            warmup_s=load.warmup_s + (sending[0][0] if sending else 0.0) if began else 0.0,
            end_s=max(0.0, min(self._end_s - self._t0_s, load.duration_s)),
            ready_s=self._ready_s,
            sources=load.sources if began else (),
            sending=sending,
            faults=faults,
            expectations=self._expectations({fault.name for fault in faults}),
            prices=scenario.prices,
            cities=scenario.cities,
            backups=scenario.backups,
            cross_cell=scenario.cross_cell,
            expected=scenario.expected,
            recovery=scenario.recovery,
            routes=scenario.routes,
            locust={zone: count for zone, count in self._locust.items() if zone not in self._uncounted},
            killed_proxies=tuple(
                (pod, at_s - self._t0_s)
                for applied in self._applied.values()
                for pod, at_s in applied.impact.killed_proxies
            ),
            machines=machines,
            hosting=self._hosting,
            unread=unread,
            interrupted=self._interrupted,
            broken="; ".join(self._broken) or None,
        )

    def _expectations(self, came: Collection[str]) -> tuple[Expectation, ...]:
        """Where a person decides what happens, those that concern something that has happened."""
        wanted = self._scenario.expectations
        return tuple(each for each in wanted if not self._by_hand or each.fault is None or each.fault in came)

    def _faults(self) -> Iterator[AppliedFault]:
        """Every fault that came, in the order of the scenario, if that has them."""
        planned = {} if self._by_hand else {fault.name: fault for fault in self._scenario.faults}
        for name in dict.fromkeys((*(each for each in planned if each in self._applied), *self._applied)):
            applied, healed, plan = self._applied[name], self._healed.get(name), planned.get(name)
            impact = applied.impact
            if plan is not None:
                declared_s, declared_heal_s, instant = plan.at_s, plan.heal_s, plan.for_s is None
            else:
                declared_s, instant = applied.due_s - self._t0_s, not applied.lasts
                declared_heal_s = None if healed is None else healed.due_s - self._t0_s
            yield AppliedFault(
                name,
                declared_s,
                impact.at_s - self._t0_s,
                None if healed is None else healed.at_s - self._t0_s,
                declared_heal_s,
                instant=instant,
                by_command=impact.by_command,
                victims=impact.victims,
                hit_nothing=impact.hit_nothing,
                cut_off=impact.cut_off,
            )

    def _applied_changes(self) -> Iterator[AppliedFault]:
        """What a person changed: from the first object on until all was as declared."""
        for name, change in self._changes.items():
            at_s, settled_s = change.at_s - self._t0_s, self._settled.get(name)
            healed_s = None if settled_s is None else settled_s - self._t0_s
            victims = tuple(f"{kind} {each}" for kind, each in change.objects)
            yield AppliedFault(name, at_s, at_s, healed_s, victims=victims)

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
                steps[0].began_s,
                last.applied_s if last is not None and over else None,
                instant=len(operation.steps) == 1 and operation.for_s is None,
                steps=steps,
            )

    def _step(self, change: MapChanged) -> MapStep:
        step = change.step
        delivered = [each for each in self._deliveries if each.step == step]
        promoted = next((each for each in self._promoted if each.step == step), None)
        held = next((each for each in self._held if each.step == step), None)
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
            None if promoted is None else self._promotion(promoted),
            None if held is None else self._held_writes(held),
        )

    def _promotion(self, promoted: DataPromoted) -> PromotedData:
        return PromotedData(promoted.began_s - self._t0_s, promoted.at_s - self._t0_s, promoted.missing)

    def _held_writes(self, held: WritesHeld) -> HeldWrites:
        at_s = {phase: at_s - self._t0_s for phase, at_s in held.at_s.items()}
        times_s = at_s["began"], at_s["forbid"], at_s.get("catch up"), at_s["lift"]
        return HeldWrites(*times_s, held.lacked, held.missing, at_s.get("given up"))
