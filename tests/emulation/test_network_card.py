"""The network cards of places and the relay process that they share, on real sockets."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from testbed.emulation.actors.network_card import NetworkCard
from testbed.emulation.actors.vigil import ActorLost
from testbed.emulation.processes import relay as relay_module
from testbed.emulation.processes.janitor import RUN_VARIABLE
from testbed.emulation.processes.relay import Relays
from testbed.faults.effects import LinkEffect
from testbed.network.addresses.loopback import LoopbackBlock, LoopbackNetwork
from testbed.network.wire.relay_client import RelayLost
from testbed.objects.addresses import SocketAddress
from testbed.objects.places import LinkQuality, Locality, Place, Topology
from tests.emulation.loopback import DEADLINE_S, eventually

PLACES = ("a", "b", "c")
DELAY_S = 0.005
SLOW_S = 1.0
CUT = LinkEffect(cut=True)


@dataclass
class Machine:
    """A relay process, and the cards of some places."""

    relays: Relays
    network: LoopbackNetwork
    card: Callable[[str], NetworkCard]
    lost: list[str] = field(default_factory=list)

    @property
    def process(self) -> psutil.Process:
        (relay,) = self.relays._processes
        return psutil.Process(relay.pid)


@asynccontextmanager
async def running(tmp_path: Path) -> AsyncIterator[Machine]:
    places = tuple(Place(name, Locality("east", f"east-{name}")) for name in PLACES)
    topology = Topology(places, same_region=LinkQuality(delay_s=DELAY_S))
    lost: list[str] = []
    relays = Relays("the link relay", tmp_path / "relay.log", lost.append)
    async with AsyncExitStack() as ending:
        block = ending.enter_context(LoopbackBlock.reserve())
        network = LoopbackNetwork(block.second_octet, PLACES)
        await relays.start(tmp_path, {**os.environ, RUN_VARIABLE: "testbed-none"}, topology)
        ending.push_async_callback(relays.stop)

        def card(place: str) -> NetworkCard:
            card = NetworkCard(place, topology, network, tmp_path, 1)
            ending.push_async_callback(card.unplug)
            return card

        yield Machine(relays, network, card, lost)


@asynccontextmanager
async def echoing(address: SocketAddress) -> AsyncIterator[None]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, address.ip, address.port)
    try:
        yield
    finally:
        server.close()


class Connection:
    """A client's end, which says ping and waits for the echo."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def to(cls, address: SocketAddress) -> Connection:
        return cls(*await asyncio.open_connection(address.ip, address.port))

    async def ping_s(self) -> float:
        began_s = time.monotonic()
        self.writer.write(b"ping")
        assert await asyncio.wait_for(self.reader.readexactly(4), DEADLINE_S) == b"ping"
        return time.monotonic() - began_s

    async def is_reset(self) -> bool:
        try:
            return await asyncio.wait_for(self.reader.read(1), DEADLINE_S) == b""
        except ConnectionResetError:
            return True


async def test_places_share_a_relay_and_each_has_its_own_links(tmp_path: Path) -> None:
    async with running(tmp_path) as machine:
        target = machine.network.allocate_pod("b", 8080).app
        cards = [machine.card("a"), machine.card("c")]
        entries = [machine.network.client_entry(card.place, 0) for card in cards]
        async with echoing(target):
            connections = []
            for card, entry in zip(cards, entries, strict=True):
                await card.open_forward("b", entry, target)
                connections.append(await Connection.to(entry))
            assert all([await connection.ping_s() >= 2 * DELAY_S for connection in connections])
            await machine.relays.impose("slow", [("a", "b")], LinkEffect(added_delay_s=SLOW_S), time.monotonic())
            slow = asyncio.create_task(connections[0].ping_s())
            assert await connections[1].ping_s() < SLOW_S
            assert await slow > SLOW_S
            await machine.relays.lift("slow", time.monotonic())
            assert await connections[0].ping_s() < SLOW_S
            for card, connection in zip(cards, connections, strict=True):
                await card.unplug()
                assert await connection.is_reset()
                connection.writer.close()
        seen = {(sample.source, sample.destination) for sample in await machine.relays.samples()}
        assert seen == {("a", "b"), ("b", "a"), ("c", "b"), ("b", "c")}
        assert machine.lost == []


async def test_what_is_said_over_ray_finds_a_fault_from_its_time_on_also_where_the_process_is_busy_then(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as machine:
        card, heard = machine.card("a"), asyncio.Event()

        async def deliver(messages: list[str]) -> None:
            heard.set()

        channel = card.channel("b", deliver)
        due_s = time.monotonic() + 0.05
        imposed = asyncio.create_task(card.impose("slow", [("a", "b")], LinkEffect(added_delay_s=3600.0), due_s))
        await asyncio.sleep(0)
        time.sleep(0.1)
        channel.send("after the fault")
        assert await imposed == due_s
        assert not heard.is_set()
        await card.lift("slow", time.monotonic())
        await asyncio.wait_for(heard.wait(), DEADLINE_S)


async def test_faults_of_one_moment_are_in_effect_together_and_not_before_their_time(tmp_path: Path) -> None:
    async with running(tmp_path) as machine:
        far = asyncio.ensure_future(machine.relays.impose("far", [("a", "b")], CUT, time.monotonic() + 3600.0))
        await machine.relays.samples()  # Nobody waits behind a fault that is to come.
        assert not far.done()
        far.cancel()
        due_s = time.monotonic() + 1.0
        imposed = (machine.relays.impose(f"cut-{place}", [(place, "b")], CUT, due_s) for place in ("a", "c"))
        later = asyncio.ensure_future(machine.relays.lift("cut-a", due_s + 0.5))
        times_s = await asyncio.gather(*imposed)
        assert due_s <= min(times_s) <= max(times_s) < due_s + 0.5 <= await later


async def test_a_place_whose_process_dies_takes_its_listeners_and_connections_with_it(tmp_path: Path) -> None:
    async with running(tmp_path) as machine:
        target = machine.network.allocate_pod("b", 8080).app
        entry = machine.network.client_entry("a", 0)
        card = machine.card("a")
        async with echoing(target):
            await card.open_forward("b", entry, target)
            connection = await Connection.to(entry)
            await connection.ping_s()
            assert card._plugged is not None
            (await card._plugged).close()  # as the kernel does
            assert await connection.is_reset()
            connection.writer.close()
            with pytest.raises(ConnectionRefusedError):
                await Connection.to(entry)
        again = machine.card("a")
        assert list(await again.open_paths(["b", "c"])) == ["b", "c"]


async def test_an_address_that_is_taken_is_told_to_who_wants_it(tmp_path: Path) -> None:
    async with running(tmp_path) as machine:
        await machine.card("a").open_paths(["b"])
        with pytest.raises(OSError, match="the relay of a cannot listen at"):
            await machine.card("a").open_paths(["b"])


async def test_a_relay_that_is_killed_is_told_of_and_nobody_waits_for_it(tmp_path: Path) -> None:
    async with running(tmp_path) as machine:
        card = machine.card("a")
        await card.open_paths(["b"])
        machine.process.kill()
        await eventually(lambda: machine.lost)
        assert machine.lost == ["the link relay died (exit code -9)"]
        with pytest.raises(ActorLost):
            await card.open_paths(["c"])
        with pytest.raises(RelayLost):
            await machine.relays.impose("cut", [("a", "b")], CUT, time.monotonic())


async def test_a_relay_that_hangs_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "PING_PERIOD_S", 0.05)
    async with running(tmp_path) as machine:
        await machine.card("a").open_paths(["b"])
        monkeypatch.setattr(relay_module, "ANSWERS_WITHIN_S", 0.5)
        machine.process.send_signal(signal.SIGSTOP)
        await eventually(lambda: machine.lost)
        assert machine.lost[0].startswith("the link relay does not answer")
        machine.process.kill()  # else the end of the test waits for its answer


async def test_a_relay_carries_the_mark_of_its_run(tmp_path: Path) -> None:
    async with running(tmp_path) as machine:
        await machine.card("a").open_paths(["b"])
        assert machine.process.environ()[RUN_VARIABLE] == "testbed-none"
