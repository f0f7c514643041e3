"""Steps of operations come when they are due, and layers are told in the order that was asked for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from testbed.control.cells.operations import FailOver, MovePartitions, Order, RollBack, ScheduledOperation
from testbed.control.cells.promotion import Promotion, ShardedStore
from testbed.control.cells.store_orders import Forbid, Lead, StoreAnswer, StoreOrder
from testbed.control.overview import Behind
from testbed.emulation.actors.locust_process import LoadProgress
from testbed.emulation.actors.vigil import ActorLost
from testbed.emulation.driver import operating
from testbed.emulation.driver.events import (
    DataPromoted,
    LoadReported,
    MapChanged,
    MapDelivered,
    SessionEvent,
    WritesHeld,
)
from testbed.emulation.driver.operating import Operating
from testbed.objects.cells import Cell, Layer, PartitionKey, PartitionMap, PartitionRule
from testbed.objects.workloads import StoreGroup
from tests.emulation.loopback import eventually

MAP = PartitionMap(
    "cells",
    1,
    PartitionKey("header", "x-user-id"),
    PartitionRule("modulo"),
    (Cell("rz01", ("a",)), Cell("rz02", ("b",))),
    ("rz01", "rz01", "rz02", "rz02"),
)


class Proxies:
    """Each layer has a map as soon as it was asked twice whether it has."""

    def __init__(self, never: tuple[str, ...] = (), unready: tuple[str, ...] = ()) -> None:
        self.maps: list[tuple[int, Layer | None]] = []
        """Version of each map that was put, and which layer alone was to have it."""
        self._never = never
        self._unready = unready
        self._asked: set[tuple[Layer, int]] = set()

    async def put_map(self, cell_map: PartitionMap) -> None:
        assert cell_map.rollout is None or cell_map.rollout.previous.version == cell_map.version - 1
        self.maps.append((cell_map.version, None if cell_map.rollout is None else cell_map.rollout.layer))

    async def promote(self, promotions: Sequence[Promotion]) -> tuple[str, ...]:
        raise AssertionError("nothing is to be promoted")

    async def order(self, orders: Sequence[StoreOrder]) -> Mapping[StoreOrder, StoreAnswer]:
        raise AssertionError("nobody is to be told who leads")

    async def behind(self, layer: Layer) -> Behind:
        if (layer, len(self.maps)) in self._asked:
            return Behind(self._never if layer == "gateways" else (), self._unready)
        self._asked.add((layer, len(self.maps)))
        return Behind((f"one-of-{layer}",), self._unready)


def carried_out(
    proxies: Proxies, order: Order, steps: tuple[float, ...] = (1.0,)
) -> tuple[Operating, list[SessionEvent]]:
    told: list[SessionEvent] = []

    async def carry_out() -> Operating:
        operation = ScheduledOperation("move", 0.05, MovePartitions((0, 1), "rz02"), steps, 0.01, order=order)
        work = Operating(MAP, [operation], proxies, told.append, time.monotonic())
        await work.carry_out()
        return work

    return asyncio.run(carry_out()), told


@pytest.mark.parametrize(
    ("order", "maps"),
    [
        ("together", [(2, None), (3, None)]),
        ("gatewaysFirst", [(2, "gateways"), (2, None), (3, "gateways"), (3, None)]),
        ("sidecarsFirst", [(2, "sidecars"), (2, None), (3, "sidecars"), (3, None)]),
    ],
)
def test_layers_are_told_in_the_order_that_was_asked_for(order: Order, maps: list[tuple[int, Layer | None]]) -> None:
    proxies = Proxies()
    work, told = carried_out(proxies, order, (0.5, 1.0))
    assert work.failure is None
    assert proxies.maps == maps
    changes = [event for event in told if isinstance(event, MapChanged)]
    assert [(event.step.number, event.version) for event in changes] == [(1, 2), (2, 3)]
    deliveries = [event for event in told if isinstance(event, MapDelivered)]
    assert all(event.at_s is not None and event.missing == () for event in deliveries)
    layers = [event.layer for event in deliveries]
    assert sorted(layers[:2]) == sorted(layers[2:]) == ["gateways", "sidecars"]
    if order == "sidecarsFirst":
        assert layers[0] == "sidecars"


def test_data_is_promoted_before_anybody_has_the_map_that_moves_traffic_to_it() -> None:
    orders: list[object] = []

    class WithData(Proxies):
        async def put_map(self, cell_map: PartitionMap) -> None:
            orders.append(cell_map.version)
            await super().put_map(cell_map)

        async def promote(self, promotions: Sequence[Promotion]) -> tuple[str, ...]:
            orders.extend(promotions)
            return ("data-r3-1",)

    told: list[SessionEvent] = []
    groups = (StoreGroup(0, 1), StoreGroup(1, 2), StoreGroup(2, 4))
    store = ShardedStore("data", groups, (("data-r1", "rz01"), ("data-r2", "rz02")))

    async def carry_out() -> None:
        move = ScheduledOperation("move", 0.05, MovePartitions((1,), "rz02"), for_s=0.1, promotes="data")
        work = Operating(MAP, [move], WithData(), told.append, time.monotonic(), {"data": store})
        await work.carry_out()
        assert work.failure is None

    asyncio.run(carry_out())
    there, back = ("data-r2", "data-r1"), ("data-r1", "data-r2")
    assert orders == [Promotion("data", 1, there), 2, Promotion("data", 1, back), 3]
    first = next(event for event in told if isinstance(event, DataPromoted))
    changed = next(event for event in told if isinstance(event, MapChanged))
    assert first.began_s <= first.at_s <= changed.at_s
    assert first.missing == ("data-r3-1",)


def test_a_replica_of_an_asynchronous_store_is_told_who_leads_when_its_own_proxy_has_the_map() -> None:
    told: list[StoreOrder] = []
    late = {"data-r1-1"}

    class WithData(Proxies):
        async def order(self, orders: Sequence[StoreOrder]) -> Mapping[StoreOrder, StoreAnswer]:
            told.extend(orders)
            if len(told) == 1:
                return dict.fromkeys(orders, StoreAnswer(False))
            late.clear()
            return dict.fromkeys(orders, StoreAnswer(True))

        async def behind(self, layer: Layer) -> Behind:
            return Behind((), tuple(late) if layer == "sidecars" else ())

    replicas = (("data-r1", "rz01"), ("data-r2", "rz02"))
    store = ShardedStore("data", (StoreGroup(0, 1), StoreGroup(1, 2), StoreGroup(2, 4)), replicas, "async")

    async def carry_out() -> None:
        move = ScheduledOperation("move", 0.0, MovePartitions((1,), "rz02"))
        work = Operating(MAP, [move], WithData(), lambda _: None, time.monotonic(), {"data": store})
        await work.carry_out()
        assert work.failure is None

    asyncio.run(carry_out())
    # The first answer was lost, so that one is told again.
    assert [order.replica for order in told] == ["data-r2", "data-r2", "data-r1"]
    assert {order.what for order in told} == {Lead(1, "data-r2", 2)}


def test_writes_are_forbidden_first_and_allowed_last_and_replication_is_waited_for_between_the_layers() -> None:
    done: list[object] = []
    lags = iter((7, 3, 0))

    class WithData(Proxies):
        async def put_map(self, cell_map: PartitionMap) -> None:
            done.append("gateways" if cell_map.rollout else "all")
            await super().put_map(cell_map)

        async def order(self, orders: Sequence[StoreOrder]) -> Mapping[StoreOrder, StoreAnswer]:
            done.extend((order.replica, order.what) for order in orders)
            asked = orders[0].what == Forbid(0, (0, 1))
            answers = {order: StoreAnswer(True, {} if order.replica == "data-r2" else None) for order in orders}
            return answers | {orders[0]: StoreAnswer(True, {"data-r2": next(lags)} if asked else None)}

    told: list[SessionEvent] = []
    replicas = (("data-r1", "rz01"), ("data-r2", "rz02"))
    store = ShardedStore("data", (StoreGroup(0, 2), StoreGroup(2, 4)), replicas, "async")

    async def carry_out() -> None:
        move = ScheduledOperation("move", 0.0, MovePartitions((0, 1), "rz02"), order="gatewaysFirst", forbids="data")
        work = Operating(MAP, [move], WithData(), told.append, time.monotonic(), {"data": store})
        await work.carry_out()
        assert work.failure is None

    asyncio.run(carry_out())
    both = ("data-r1", "data-r2")
    assert done[:2] == [(name, Forbid(0, (0, 1))) for name in both]
    assert done[2:7] == ["gateways", *((name, Forbid(0, (0, 1))) for name in both * 2)]
    # The new leader is told before the old one, and the latter may hear of the lift together with that.
    assert done[7:9] == ["all", ("data-r2", Lead(0, "data-r2", 2))]
    assert set(done[9:]) == {("data-r1", Lead(0, "data-r2", 2)), *((name, Forbid(0)) for name in both)}
    (held,) = (event for event in told if isinstance(event, WritesHeld))
    assert list(held.at_s) == ["began", "forbid", "gateways", "catch up", "sidecars", "lift"]
    assert list(held.at_s.values()) == sorted(held.at_s.values())
    assert (held.lacked, held.missing) == (3, ())


class SilentLeader(Proxies):
    """Of the two replicas the one that leads what moves runs no more, until it `is_back`."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[StoreOrder] = []
        self.is_back = False

    async def order(self, orders: Sequence[StoreOrder]) -> Mapping[StoreOrder, StoreAnswer]:
        self.told.extend(orders)
        return {order: StoreAnswer(self.is_back or order.replica != "data-r1") for order in orders}


DATA = ShardedStore(
    "data", (StoreGroup(0, 1), StoreGroup(1, 2), StoreGroup(2, 4)), (("data-r1", "rz01"), ("data-r2", "rz02")), "async"
)


@pytest.mark.parametrize("order", ["gatewaysFirst", "sidecarsFirst"])
def test_a_step_whose_data_does_not_come_in_time_is_taken_back_and_writes_are_allowed_again(order: Order) -> None:
    events: list[SessionEvent] = []
    replicas = SilentLeader()

    async def carry_out() -> None:
        move = ScheduledOperation(
            "m", 0.0, MovePartitions((1,), "rz02"), for_s=60.0, order=order, forbids="data", catch_up_within_s=0.1
        )
        work = Operating(MAP, [move], replicas, events.append, time.monotonic(), {"data": DATA})
        carrying_out = asyncio.create_task(work.carry_out())
        await eventually(lambda: any(isinstance(event, WritesHeld) for event in events))
        # Who could not be told that it may take writes again is told when it is back, and nothing comes after that.
        replicas.is_back = True
        await carrying_out
        assert work.failure is None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(operating, "LAYER_WAIT_S", 0.1)
        asyncio.run(carry_out())
    begun, back = (event for event in events if isinstance(event, MapChanged))
    assert (begun.version, back.version) == (2, 3)
    assert (back.step.reverts, back.step.gives_up, back.step.change) == (True, True, begun.step.change.reverse)
    assert replicas.maps[-1] == (3, None)
    (held,) = (event for event in events if isinstance(event, WritesHeld))
    assert held.missing == ("data-r1",)
    assert "catch up" not in held.at_s
    assert held.at_s["given up"] - held.at_s["forbid"] >= 0.1
    assert held.at_s["given up"] <= back.at_s <= held.at_s["lift"]
    last = {each.replica: each.what for each in replicas.told if isinstance(each.what, Forbid)}
    assert last == dict.fromkeys(("data-r1", "data-r2"), Forbid(1))
    led = {each.replica: each.what for each in replicas.told if isinstance(each.what, Lead)}
    # Where replicas had been told of the new leader, they are told of the former one.
    assert led == ({} if order == "gatewaysFirst" else dict.fromkeys(led, Lead(1, "data-r1", 3)))
    assert "data-r2" in led or order == "gatewaysFirst"


def test_when_the_data_of_a_later_step_does_not_come_the_earlier_ones_are_taken_back_too() -> None:
    events: list[SessionEvent] = []

    class ThenSilent(SilentLeader):
        async def order(self, orders: Sequence[StoreOrder]) -> Mapping[StoreOrder, StoreAnswer]:
            of_second = any(order.what == Forbid(1, (1,)) for order in orders)
            answers = await super().order(orders)
            return answers if of_second else dict.fromkeys(orders, StoreAnswer(True))

    async def carry_out() -> None:
        move = ScheduledOperation(
            "m",
            0.0,
            MovePartitions((0, 1), "rz02"),
            (0.5, 1.0),
            0.01,
            order="gatewaysFirst",
            forbids="data",
            catch_up_within_s=0.1,
        )
        work = Operating(MAP, [move], ThenSilent(), events.append, time.monotonic(), {"data": DATA})
        await work.carry_out()
        assert work.failure is None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(operating, "LAYER_WAIT_S", 0.1)
        asyncio.run(carry_out())
    steps = [event.step for event in events if isinstance(event, MapChanged)]
    assert [(step.number, step.reverts, sorted(step.change.partitions)) for step in steps] == [
        (1, False, [0]),
        (2, False, [1]),
        (2, True, [1]),
        (1, True, [0]),
    ]
    assert [event.at_s.get("given up") is None for event in events if isinstance(event, WritesHeld)] == [
        True,
        False,
        True,
    ]


def test_who_hears_late_of_one_step_does_not_allow_what_the_next_one_forbids() -> None:
    """The old owner's proxy gets no map until the operation is taken back: then it is told of both at once."""
    told: list[object] = []
    late = {"data-r1-1"}

    class WithData(Proxies):
        async def order(self, orders: Sequence[StoreOrder]) -> Mapping[StoreOrder, StoreAnswer]:
            told.extend(order.what for order in orders if order.replica == "data-r1")
            return dict.fromkeys(orders, StoreAnswer(True))

        async def put_map(self, cell_map: PartitionMap) -> None:
            if cell_map.version == 3:
                late.clear()
                await asyncio.sleep(0.2)
            await super().put_map(cell_map)

        async def behind(self, layer: Layer) -> Behind:
            return Behind((), tuple(late) if layer == "sidecars" else ())

    replicas = (("data-r1", "rz01"), ("data-r2", "rz02"))
    store = ShardedStore("data", (StoreGroup(0, 2), StoreGroup(2, 4)), replicas, "async")

    async def carry_out() -> None:
        partitions, there_and_back = MovePartitions((0, 1), "rz02"), 0.2
        move = ScheduledOperation("m", 0.0, partitions, for_s=there_and_back, order="gatewaysFirst", forbids="data")
        work = Operating(MAP, [move], WithData(), lambda _: None, time.monotonic(), {"data": store})
        await work.carry_out()
        assert work.failure is None

    asyncio.run(carry_out())
    forbidden, allowed = Forbid(0, (0, 1)), Forbid(0)
    orders = [each for at, each in enumerate(told) if at == 0 or told[at - 1] != each]
    assert orders == [forbidden, Lead(0, "data-r2", 2), forbidden, Lead(0, "data-r1", 3), allowed]


def test_who_never_acknowledges_is_waited_for_in_vain_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operating, "LAYER_WAIT_S", 0.1)
    proxies = Proxies(never=("gateway-a-1",), unready=("cut-off-1",))
    _, told = carried_out(proxies, "gatewaysFirst")
    assert proxies.maps == [(2, "gateways"), (2, None)]
    late, other = (event for event in told if isinstance(event, MapDelivered))
    assert (late.layer, late.at_s, late.missing) == ("gateways", None, ("gateway-a-1", "cut-off-1"))
    # Who cannot be reached is not waited for.
    assert (other.layer, other.missing) == ("sidecars", ("cut-off-1",))
    assert other.at_s is not None


def test_a_step_that_cannot_be_carried_out_says_so_and_none_comes_after_it() -> None:
    class Lost(Proxies):
        async def put_map(self, cell_map: PartitionMap) -> None:
            await super().put_map(cell_map)
            raise ActorLost("the master died")

    class Refusing(Proxies):
        async def put_map(self, cell_map: PartitionMap) -> None:
            await super().put_map(replace(cell_map))
            raise ValueError("no")

    for proxies, failure in (
        (Lost(), "the master died"),
        (Refusing(), "step 1 of operation move failed: ValueError: no"),
    ):
        work, told = carried_out(proxies, "together", (0.5, 1.0))
        assert work.failure is not None
        assert work.failure.startswith(failure)
        assert (len(proxies.maps), told) == (1, [])


def test_an_operation_is_given_up_when_too_many_requests_fail_and_what_is_done_goes_back() -> None:
    told: list[SessionEvent] = []
    proxies = Proxies()

    def a_second(of: Operating, t0_s: float, now_s: float, not_ok: int) -> None:
        of.hear(LoadReported(t0_s + now_s, {"a": LoadProgress(sent_per_s=50.0, unknown=not_ok), "b": LoadProgress()}))

    async def carry_out() -> None:
        t0_s = time.monotonic()
        operation = ScheduledOperation(
            "move", 0.0, MovePartitions((0, 1), "rz02"), (0.5, 1.0), 60.0, roll_back=RollBack(0.1, 2.0)
        )
        other = ScheduledOperation("other", 61.0, MovePartitions((2,), "rz01"))
        work = Operating(MAP, [operation, other], proxies, told.append, t0_s)
        carrying_out = asyncio.create_task(work.carry_out())
        await eventually(lambda: len(told) == 3)
        # Ten of a hundred requests in two seconds are a tenth, and not more.
        for now_s, not_ok in ((1.0, 0), (2.0, 5), (3.0, 10), (4.0, 15)):
            a_second(work, t0_s, now_s, not_ok)
        assert len(told) == 3
        a_second(work, t0_s, 5.0, 21)
        await eventually(lambda: len(told) == 6)
        carrying_out.cancel()

    asyncio.run(carry_out())
    begun, back = (event for event in told if isinstance(event, MapChanged))
    assert (begun.step.reverts, back.step.reverts, back.step.gives_up, back.version) == (False, True, True, 3)
    assert back.step.change == begun.step.change.reverse
    assert proxies.maps == [(2, None), (3, None)]


def test_what_was_given_up_and_is_lent_again_later_counts_as_lent() -> None:
    told: list[SessionEvent] = []
    cell_map = replace(MAP, cells=(Cell("rz01", ("a",), backup="rz02"), Cell("rz02", ("b",))))

    async def carry_out() -> None:
        t0_s = time.monotonic()
        given_up = ScheduledOperation("first", 0.0, FailOver("rz01"), for_s=0.5, roll_back=RollBack(0.1, 1.0))
        again = ScheduledOperation("again", 0.6, FailOver("rz01"))
        work = Operating(cell_map, [given_up, again], Proxies(), told.append, t0_s)
        carrying_out = asyncio.create_task(work.carry_out())
        await eventually(lambda: len(told) >= 3)
        for now_s, not_ok in ((-1.0, 0), (0.0, 50)):
            work.hear(LoadReported(t0_s + now_s, {"a": LoadProgress(sent_per_s=50.0, unknown=not_ok)}))
        await eventually(lambda: len(told) >= 9)
        carrying_out.cancel()

    asyncio.run(carry_out())
    lent = [event.step.lent for event in told if isinstance(event, MapChanged)]
    assert lent == [frozenset({0, 1}), frozenset(), frozenset({0, 1})]
