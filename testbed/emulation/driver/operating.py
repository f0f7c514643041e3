"""The operations of a scenario, on time: each step is a new version of the partition map, told layer by layer.

What a step changes is planned in `control.cells.operations`. Who carries them out is an operator: new maps are applied
as objects, and whether they have arrived is asked of the control plane, which only knows of proxies that it reaches.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, get_args

from testbed.control.cells.handover import Handover, handovers
from testbed.control.cells.operations import (
    Judge,
    PlannedStep,
    ScheduledOperation,
    changed,
    planned,
    taken_back,
)
from testbed.control.cells.phases import BACK, Phase, phases
from testbed.control.cells.promotion import Promotion, ShardedStore, promotions
from testbed.control.cells.store_orders import StoreAnswer, StoreOrder, lacks
from testbed.control.overview import Behind
from testbed.emulation.actors.vigil import ActorLost, in_short
from testbed.emulation.driver.events import (
    DataPromoted,
    LoadReported,
    MapChanged,
    MapDelivered,
    SessionEvent,
    Watcher,
    WritesHeld,
)
from testbed.emulation.driver.member import MachineLost
from testbed.objects.cells import Layer, PartitionMap, Rollout

LAYER_WAIT_S = 5.0
"""How long a layer is waited for; the other one is told then in any case."""
POLL_S = 0.05


class Changeable(Protocol):
    """What operations are carried out on: a Session."""

    async def put_map(self, cell_map: PartitionMap) -> None: ...

    async def promote(self, promotions: Sequence[Promotion]) -> tuple[str, ...]: ...

    async def order(self, orders: Sequence[StoreOrder]) -> Mapping[StoreOrder, StoreAnswer]: ...

    async def behind(self, layer: Layer) -> Behind: ...


@dataclass(slots=True)
class _UnderWay:
    """A step that is made. `at_s` is when each phase was over."""

    step: PlannedStep
    before: PartitionMap
    handed_over: list[Handover]
    held: Handover | None
    """The one whose writes are forbidden."""
    at_s: dict[str, float] = field(default_factory=dict)
    told: tuple[Layer, ...] = ()
    lacked: int = 0
    missing: tuple[str, ...] = ()


class Operating:
    """Steps count from `t0_s`, monotonic seconds."""

    def __init__(
        self,
        cell_map: PartitionMap,
        operations: Sequence[ScheduledOperation],
        session: Changeable,
        tell: Watcher,
        t0_s: float,
        stores: Mapping[str, ShardedStore] | None = None,
    ) -> None:
        """`stores` are the sharded ones, by service. Raises OperationImpossible."""
        self._stores = stores or {}
        self._telling: set[asyncio.Task[None]] = set()
        """Replicas of asynchronous stores who leads by the newest map: each when its own proxy has it."""
        self._map = cell_map
        self._operations = {each.name: each for each in operations}
        self._waiting = deque(planned(cell_map, operations))
        self._session = session
        self._tell = tell
        self._t0_s = t0_s
        self._handed_over: list[Handover] = []
        self._done: dict[str, list[PlannedStep]] = {}
        self._judges: dict[str, Judge] = {}
        """Of operations that may still be given up."""
        self._to_give_up: asyncio.Queue[str] = asyncio.Queue()
        self._lent: frozenset[int] = frozenset()
        self._gone_back: frozenset[int] = frozenset()
        """Partitions of operations that were given up, as long as no other operation has them."""
        self.failure: str | None = None
        """Why a step could not be carried out, if so; none comes after it."""

    def hear(self, event: SessionEvent) -> None:
        """A watcher: how requests end decides whether an operation goes on."""
        if not isinstance(event, LoadReported):
            return
        now_s, zones = event.at_s - self._t0_s, event.zones.values()
        sent, not_ok = sum(each.sent_per_s for each in zones), sum(each.failed + each.unknown for each in zones)
        for name, judge in list(self._judges.items()):
            operation = self._operations[name]
            assert operation.roll_back is not None, f"{name} has no condition"
            if now_s > operation.last_step_s + operation.roll_back.over_s:
                del self._judges[name]
            elif judge.gives_up(now_s, sent, not_ok):
                del self._judges[name]
                self._to_give_up.put_nowait(name)

    async def carry_out(self) -> None:
        """One step after the other, each when it is due and those before it have arrived or been waited for. What is
        given up goes back at once."""
        doing = "the operations"
        try:
            while self._waiting or self._judges:
                name = await self._given_up_before(self._waiting[0].at_s if self._waiting else math.inf)
                step = self._waiting.popleft() if name is None else self._back(name)
                doing = f"step {step.number} of operation {step.operation}"
                await self._carry_out(step)
            doing = "telling replicas of stores who leads"
            await asyncio.gather(*self._telling)
        except (MachineLost, ActorLost) as failure:
            self.failure = str(failure)
        except Exception as defect:
            self.failure = f"{doing} failed: {in_short(defect)}"
        finally:
            for telling in self._telling:
                telling.cancel()

    async def _given_up_before(self, at_s: float) -> str | None:
        if self._to_give_up.empty() and (left_s := self._t0_s + at_s - time.monotonic()) > 0:
            with contextlib.suppress(TimeoutError):
                return await asyncio.wait_for(self._to_give_up.get(), None if at_s == math.inf else left_s)
        return None if self._to_give_up.empty() else self._to_give_up.get_nowait()

    def _back(self, name: str) -> PlannedStep:
        """The step that takes back what is done of an operation, instead of all that were to come."""
        self._waiting = deque(each for each in self._waiting if each.operation != name)
        done = self._done[name]
        change = taken_back([each.change for each in done])
        self._gone_back |= change.partitions
        at_s = time.monotonic() - self._t0_s
        return replace(done[-1], at_s=at_s, change=change, reverts=True, gives_up=True, lent=self._lent)

    async def _carry_out(self, step: PlannedStep) -> None:
        if not step.gives_up:
            self._gone_back -= step.change.partitions
        step = replace(step, lent=step.lent - self._gone_back)
        before, lent = self._map, self._lent
        self._map, self._lent = changed(self._map, step.change), step.lent
        await self._promote(step)
        operation = self._operations[step.operation]
        handed_over = self._handovers(step, operation.forbids)
        held = next((each for each in handed_over if each.forbidden), None)
        under_way = _UnderWay(step, before, handed_over, held, {"began": time.monotonic()})
        done = await self._play(under_way, phases(step.order, held is not None))
        if held is not None:
            if not done:
                under_way.at_s["given up"] = time.monotonic()
                await self._undo(under_way, lent)
            self._tell(WritesHeld(step, under_way.at_s, under_way.lacked, under_way.missing))

    async def _play(self, under_way: _UnderWay, way: Iterable[tuple[Phase, ...]]) -> bool:
        """False if replication has not caught up in time: what was to come then is left out."""
        step, held = under_way.step, under_way.held
        for phase in way:
            layers = tuple(layer for layer in get_args(Layer) if layer in phase)
            if layers:
                under_way.told += layers
                rollout = None if len(under_way.told) == 2 else Rollout(layers[0], under_way.before)
                await self._session.put_map(replace(self._map, rollout=rollout))
                if under_way.told == layers:
                    self._begun(step)
                if "sidecars" in layers:
                    self._tell_leaders(under_way.handed_over)
                await asyncio.gather(*(self._delivered(step, layer) for layer in layers))
            elif held is None:
                raise AssertionError(phase)
            elif phase == ("forbid",):
                under_way.missing = await self._forbid(held)
            elif phase == ("catch up",):
                within_s = self._operations[step.operation].catch_up_within_s
                in_time, under_way.lacked = await self._catch_up(held, within_s)
                if not in_time:
                    return False
            else:
                await self._lift(held)
            under_way.at_s[phase[-1]] = time.monotonic()
        return True

    async def _undo(self, in_vain: _UnderWay, lent: frozenset[int]) -> None:
        """A step whose data has not come. Its operation is given up: none of its steps comes any more, and what earlier
        ones have done is taken back. `lent` were partitions before it."""
        step, held = in_vain.step, in_vain.held
        assert held is not None
        self._waiting = deque(each for each in self._waiting if each.operation != step.operation)
        at_s, change = time.monotonic() - self._t0_s, step.change.reverse
        back = replace(step, at_s=at_s, change=change, reverts=True, gives_up=True, lent=lent)
        before, self._map, self._lent = self._map, changed(self._map, change), lent
        held.waiting = []
        handed_over = self._handovers(back, None) if "sidecars" in in_vain.told else []
        for each in handed_over:
            if each.store == held.store:
                each.forbidden, held = held.forbidden, each
        under_way = _UnderWay(back, before, handed_over, held)
        await self._play(under_way, BACK)
        in_vain.at_s["lift"] = under_way.at_s["lift"]
        if not step.reverts:
            self._gone_back |= change.partitions
            self._done[step.operation].remove(step)
            if self._done[step.operation]:
                earlier = self._back(step.operation)
                self._waiting.appendleft(earlier)

    def _handovers(self, step: PlannedStep, forbidden_of: str | None) -> list[Handover]:
        found = handovers(self._stores.values(), step.change, self._map.version, forbidden_of)
        for handover in found:
            for before in self._handed_over:
                before.leave_forbidden(handover)
        self._handed_over += found
        return found

    async def _forbid(self, held: Handover) -> tuple[str, ...]:
        """Returns the replicas that have not answered."""
        left, deadline_s = list(held.everybody), time.monotonic() + LAYER_WAIT_S
        while True:
            answers = await self._session.order(held.orders(left, held.forbidden))
            left = [
                name for name in left if not all(answer.done for to, answer in answers.items() if to.replica == name)
            ]
            if not left or time.monotonic() >= deadline_s:
                return tuple(left)
            await asyncio.sleep(POLL_S)

    async def _catch_up(self, held: Handover, within_s: float) -> tuple[bool, int]:
        """Whether it did within that time, and how many writes there were to wait for, as far as anybody could say. All
        are told again not to take writes each time: one may not have answered before."""
        most, deadline_s = 0, time.monotonic() + within_s
        while True:
            answers = await self._session.order(held.orders(held.everybody, held.forbidden))
            found = [
                lacks(lead, {order.replica: each for order, each in answers.items() if order.what == forbid})
                for lead, forbid in zip(held.leads, held.forbidden, strict=True)
            ]
            most = max(most, sum(each or 0 for each in found))
            if found == [0] * len(found):
                return True, most
            if time.monotonic() >= deadline_s:
                return False, most
            await asyncio.sleep(POLL_S)

    async def _lift(self, held: Handover) -> None:
        """From now on; who does not know yet who leads is told both together. First, new leaders have to know that they
        are: as with layers, they are not waited for for ever."""
        deadline_s = time.monotonic() + LAYER_WAIT_S
        while {each.leader for each in held.leads} & set(held.waiting) and time.monotonic() < deadline_s:
            await asyncio.sleep(POLL_S)
        held.lifted = True
        late = await self._allowed(held, [name for name in held.everybody if name not in held.waiting])
        if late:
            self._telling.add(asyncio.create_task(self._allow_late(held, late)))

    async def _allow_late(self, held: Handover, late: Sequence[str]) -> None:
        """Whoever was told to refuse writes does so over restarts: it has to hear that it may take them."""
        while late := await self._allowed(held, late):
            await asyncio.sleep(POLL_S)

    async def _allowed(self, held: Handover, names: Sequence[str]) -> list[str]:
        """Tell them. Returns those that have not answered."""
        answers = await self._session.order(held.orders(names, held.allowed))
        return list(dict.fromkeys(order.replica for order, answer in answers.items() if not answer.done))

    async def _promote(self, step: PlannedStep) -> None:
        """Data first: whoever gets traffic is to lead already."""
        store = self._operations[step.operation].promotes
        if store is None:
            return
        began_s = time.monotonic()
        missing = await self._session.promote(promotions(self._stores[store], step.change))
        self._tell(DataPromoted(step, began_s, time.monotonic(), missing))

    def _tell_leaders(self, handed_over: Iterable[Handover]) -> None:
        self._telling |= {asyncio.create_task(self._tell_who_leads(each)) for each in handed_over}

    async def _tell_who_leads(self, handover: Handover) -> None:
        """Each replica when its own proxy has the map, by which it goes."""
        while handover.waiting:
            behind = await self._session.behind("sidecars")
            without = {pod.rpartition("-")[0] for pod in (*behind.ready, *behind.unready)}
            having = [name for name in handover.first if name not in without]
            lifted = handover.lifted
            allowed = handover.allowed if lifted else ()
            answers = await self._session.order(handover.orders(having, (*handover.leads, *allowed)))
            late = {order.replica for order, answer in answers.items() if not answer.done}
            if handover.lifted and not lifted:
                continue
            handover.waiting = [name for name in handover.waiting if name not in having or name in late]
            await asyncio.sleep(POLL_S)

    def _begun(self, step: PlannedStep) -> None:
        self._tell(MapChanged(step, self._map.version, time.monotonic()))
        condition = self._operations[step.operation].roll_back
        if step.reverts:
            self._judges.pop(step.operation, None)
            return
        self._done.setdefault(step.operation, []).append(step)
        if step.number == 1 and condition is not None:
            self._judges[step.operation] = Judge(condition)

    async def _delivered(self, step: PlannedStep, layer: Layer) -> None:
        deadline_s = time.monotonic() + LAYER_WAIT_S
        while (behind := await self._session.behind(layer)).ready and time.monotonic() < deadline_s:
            await asyncio.sleep(POLL_S)
        at_s = None if behind.ready else time.monotonic()
        self._tell(MapDelivered(step, layer, at_s, (*behind.ready, *behind.unready)))
