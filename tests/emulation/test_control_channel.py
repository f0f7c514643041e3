"""The control path obeys the emulated links: delays, cuts and what becomes of what waits behind them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from time import monotonic
from typing import Any

import pytest

from testbed.emulation.actors.control_channel import ControlChannel
from testbed.faults.effects import LinkEffect
from testbed.network.links import LinkTable
from testbed.objects.places import LinkQuality, Locality, Place, Topology
from tests.emulation.loopback import DEADLINE_S, eventually

CUT = LinkEffect(cut=True)
DELAY_S = 0.02
LONG_S = 0.2
"""Long enough for what is done at once to be done before it is over."""
BOTH_DIRECTIONS = pytest.mark.parametrize("cut", [("a", "b"), ("b", "a")], ids=["there", "back"])


def links(delay_s: float = DELAY_S) -> LinkTable:
    places = tuple(Place(name, Locality("east", f"east-{name}")) for name in ("a", "b", "c"))
    return LinkTable(Topology(places, same_region=LinkQuality(delay_s=delay_s)))


class Receiver:
    """Takes what is delivered; while `gate` is closed, a delivery does not end."""

    def __init__(self) -> None:
        self.deliveries: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def deliver(self, messages: list[int]) -> None:
        self.deliveries.append(messages)
        await self.gate.wait()

    @property
    def messages(self) -> list[int]:
        return [message for delivery in self.deliveries for message in delivery]


@asynccontextmanager
async def channel(
    table: LinkTable,
    destination: str = "b",
    supersede: Callable[[list[int]], list[int]] = lambda messages: messages,
) -> AsyncIterator[tuple[ControlChannel[int], Receiver]]:
    receiver = Receiver()
    opened = ControlChannel(lambda: table, "a", destination, receiver.deliver, supersede)
    try:
        yield opened, receiver
    finally:
        await opened.close()


async def as_long_as_a_delivery_takes(table: LinkTable) -> None:
    """Return when a message that was sent just now, over a link that no test cuts, has arrived."""
    async with channel(table, "c") as (other, receiver):
        other.send(0)
        await eventually(lambda: receiver.messages)


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, DEADLINE_S))


def test_messages_arrive_in_the_order_in_which_they_were_sent() -> None:
    async def scenario() -> None:
        async with channel(links(0.001)) as (sender, receiver):
            for number in range(100):
                sender.send(number)
                if number % 10 == 0:
                    await asyncio.sleep(0)
            await eventually(lambda: len(receiver.messages) == 100)
            assert receiver.messages == list(range(100))

    run(scenario())


def test_latency_that_is_lifted_does_not_hold_what_is_on_its_way() -> None:
    async def scenario() -> None:
        table = links(0.001)
        async with channel(table) as (sender, receiver):
            table.impose("slow", [("a", "b")], LinkEffect(added_delay_s=2 * DEADLINE_S))
            sender.send(1)
            await as_long_as_a_delivery_takes(table)
            assert not receiver.messages
            table.lift("slow")
            sender.links_changed()
            sender.send(2)
            await eventually(lambda: receiver.messages == [1, 2])

    run(scenario())


def test_a_message_takes_at_least_the_delay_of_the_link() -> None:
    async def scenario() -> None:
        async with channel(links()) as (sender, receiver):

            def arrived(number: int) -> bool:
                return number in receiver.messages

            for number in range(3):
                sent = monotonic()
                sender.send(number)
                await eventually(partial(arrived, number))
                assert monotonic() - sent >= DELAY_S

    run(scenario())


def test_a_message_does_not_overtake_one_that_was_sent_over_a_slower_link() -> None:
    async def scenario() -> None:
        table = links()
        async with channel(table) as (sender, receiver):
            table.impose("slow", [("a", "b")], LinkEffect(added_delay_s=0.1))
            sender.send(1)
            table.lift("slow")
            sender.links_changed()
            sender.send(2)
            await eventually(lambda: len(receiver.messages) == 2)
            assert receiver.messages == [1, 2]

    run(scenario())


@BOTH_DIRECTIONS
def test_nothing_is_delivered_while_either_direction_is_cut(cut: tuple[str, str]) -> None:
    async def scenario() -> None:
        table = links()
        async with channel(table) as (sender, receiver):
            table.impose("partition", [cut], CUT)
            sender.links_changed()
            sender.send(1)
            await as_long_as_a_delivery_takes(table)
            assert receiver.messages == []

    run(scenario())


@BOTH_DIRECTIONS
def test_a_cut_stops_what_is_already_on_its_way(cut: tuple[str, str]) -> None:
    async def scenario() -> None:
        table = links(LONG_S)
        async with channel(table) as (sender, receiver):
            sender.send(1)
            await asyncio.sleep(0)
            table.impose("partition", [cut], CUT)
            sender.links_changed()
            await as_long_as_a_delivery_takes(table)
            assert receiver.messages == []

    run(scenario())


@BOTH_DIRECTIONS
def test_everything_arrives_once_the_cut_is_lifted(cut: tuple[str, str]) -> None:
    async def scenario() -> None:
        table = links()
        async with channel(table) as (sender, receiver):
            table.impose("partition", [cut], CUT)
            table.impose("second", [cut], CUT)
            for number in range(3):
                sender.send(number)
            table.lift("partition")
            sender.links_changed()
            await as_long_as_a_delivery_takes(table)
            assert receiver.messages == []
            table.lift("second")
            sender.links_changed()
            await eventually(lambda: receiver.messages)
            assert receiver.deliveries == [[0, 1, 2]]

    run(scenario())


def test_what_waited_behind_a_cut_is_thinned_out() -> None:
    async def scenario() -> None:
        table = links(0.0)
        async with channel(table, supersede=lambda messages: messages[-1:]) as (sender, receiver):
            table.impose("partition", [("a", "b")], CUT)
            for number in range(5):
                sender.send(number)
            table.lift("partition")
            sender.links_changed()
            await eventually(lambda: receiver.messages)
            sender.send(5)
            await eventually(lambda: len(receiver.messages) == 2)
            assert receiver.deliveries == [[4], [5]]

    run(scenario())


def test_messages_wait_for_the_delivery_before_them() -> None:
    async def scenario() -> None:
        async with channel(links(0.0)) as (sender, receiver):
            receiver.gate.clear()
            sender.send(1)
            await eventually(lambda: receiver.messages)
            sender.send(2)
            sender.send(3)
            await as_long_as_a_delivery_takes(links(0.0))
            assert receiver.deliveries == [[1]]
            receiver.gate.set()
            await eventually(lambda: len(receiver.messages) == 3)
            assert receiver.deliveries == [[1], [2, 3]]

    run(scenario())


def test_dropped_messages_never_arrive_and_later_ones_do() -> None:
    async def scenario() -> None:
        table = links(LONG_S)
        async with channel(table) as (sender, receiver):
            table.impose("off", [("a", "b")], CUT)
            sender.send(1)
            sender.drop_waiting()
            table.lift("off")
            sender.links_changed()
            sender.send(2)
            await asyncio.sleep(0)
            sender.drop_waiting()
            sender.send(3)
            await eventually(lambda: receiver.messages)
            assert receiver.messages == [3]

    run(scenario())


def test_nothing_is_delivered_after_close() -> None:
    async def scenario() -> None:
        table = links(0.0)
        async with channel(table) as (sender, receiver):
            sender.send(1)
            await sender.close()
            await as_long_as_a_delivery_takes(table)
            assert receiver.messages == []

    run(scenario())
