"""The network card of a place: all that nodes, clients and control planes have to do with the emulated network.

Where the place listens, and what becomes of its bytes, is the machine's link relay's to do. What is said over Ray takes
the links as they are known here. Faults are told to every relay once, and to every card for the sake of the latter.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from testbed.emulation.actors.control_channel import ControlChannel
from testbed.emulation.actors.reports import Recorded
from testbed.emulation.actors.seam import until
from testbed.emulation.actors.vigil import ActorLost, Attended
from testbed.emulation.processes.lateness import LoopWatch
from testbed.emulation.processes.relay import STARTS_WITHIN_S, relay_socket
from testbed.faults.effects import LinkEffect
from testbed.network.addresses.backend import NetworkBackend
from testbed.network.links import LinkTable, Pairs
from testbed.network.wire.peers import Peer
from testbed.network.wire.relay_client import RelayClient, RelayLost
from testbed.network.wire.relay_messages import PathTo
from testbed.objects.addresses import SocketAddress
from testbed.objects.places import Topology

T = TypeVar("T")


class NetworkCard:
    """Of one place. It is plugged in when something is first opened; `folder` is where the machine's relay is asked."""

    def __init__(self, place: str, topology: Topology, network: NetworkBackend, folder: Path, seed: int) -> None:
        self.place = place
        self._network = network
        self._folder = folder
        self._seed = seed
        self._links = LinkTable(topology)
        self._announced: list[tuple[float, Callable[[], None]]] = []
        """Changes of the links that are still to come, and when, in monotonic seconds."""
        self._channels: list[ControlChannel[Any]] = []
        self._plugged: asyncio.Task[RelayClient] | None = None

    # --- its listeners -----------------------------------------------------------------------------------------

    async def open_paths(self, destinations: Iterable[str]) -> dict[str, SocketAddress]:
        """Take CONNECT to any address of these places; returns where, for each. Raises OSError."""
        listeners = {each: self._network.relay_listener(self.place, each) for each in destinations}
        paths = [
            PathTo(each, listen, self._network.node_network(each), self._network.tunnel(self.place, each))
            for each, listen in listeners.items()
        ]
        if paths:
            await self._ask("open_paths", paths)
        return listeners

    async def open_forward(self, destination: str, listen: SocketAddress, target: SocketAddress) -> None:
        """Take TCP at `listen` for one address at `destination`, instead of what was led there before."""
        await self._ask("open_forward", destination, listen, target, self._network.tunnel(self.place, destination))

    async def open_services(self, name: str, log: Path, listeners: Mapping[str, SocketAddress]) -> None:
        """Take TCP for each service, for the endpoints that `lead` tells of; `name` is whose rules these are, and into
        `log` goes which connection was led where."""
        if listeners:
            await self._ask("open_services", name, self._seed, log, dict(listeners))

    async def lead(self, endpoints: Mapping[str, tuple[tuple[str, SocketAddress], ...]]) -> None:
        """Endpoints of all services, as node and address, for the connections to come."""
        await self._ask("lead", dict(endpoints))

    async def open_peers(self, others: Iterable[str]) -> tuple[SocketAddress, tuple[Peer, ...]]:
        """The ways to places like this one, of which each has one replica: where that of this place listens, and how it
        reaches the others. Raises OSError."""
        relays = await self.open_paths(others)
        peers = (Peer(each, self._network.replica_address(each, 0), relay) for each, relay in relays.items())
        return self._network.replica_address(self.place, 0), tuple(peers)

    # --- the control path --------------------------------------------------------------------------------------

    def channel(
        self,
        destination: str,
        deliver: Callable[[list[T]], Awaitable[object]],
        supersede: Callable[[list[T]], list[T]] = lambda messages: messages,
    ) -> ControlChannel[T]:
        """From here to another place, over the links as they are."""
        channel = ControlChannel(self._links_now, self.place, destination, deliver, supersede)
        self._channels.append(channel)
        return channel

    async def impose(self, fault: str, pairs: Pairs, effect: LinkEffect, due_s: float) -> float:
        """At `due_s`, or now where that has passed; returns when. Monotonic seconds."""
        return await self._change(lambda: self._links.impose(fault, pairs, effect), due_s)

    async def lift(self, fault: str, due_s: float) -> float:
        """As `impose`."""
        return await self._change(lambda: self._links.lift(fault), due_s)

    async def _change(self, change: Callable[[], None], due_s: float) -> float:
        # It holds from then on, also when this process is busy at that moment: what is said or delivered next finds it.
        at_s = max(due_s, time.monotonic())
        announced = at_s, change
        self._announced.append(announced)
        try:
            await until(at_s)
        except asyncio.CancelledError:
            self._announced.remove(announced)
            raise
        self._links_now()
        for channel in self._channels:
            channel.links_changed()
        return at_s

    def _links_now(self) -> LinkTable:
        now_s = time.monotonic()
        due = [each for each in self._announced if each[0] <= now_s]
        self._announced = [each for each in self._announced if each[0] > now_s]
        for _, change in sorted(due, key=lambda each: each[0]):
            change()
        return self._links

    # --- its end -----------------------------------------------------------------------------------------------

    async def unplug(self) -> None:
        """Nothing listens any more, what is connected is reset, and no message is on its way."""
        for channel in self._channels:
            await channel.close()
        if self._plugged is not None:
            with contextlib.suppress(RelayLost):
                relay = await self._plugged
                try:
                    await relay.ask("detach")
                finally:
                    relay.close()

    async def _ask(self, method: str, *arguments: object) -> None:
        """Raises ActorLost where the relay is lost, which is told to who watches by its machine."""
        if self._plugged is None:
            self._plugged = asyncio.create_task(self._plug_in())
        try:
            await (await asyncio.shield(self._plugged)).ask(method, *arguments)
        except RelayLost as lost:
            raise ActorLost(f"the link relay of {self.place} {lost}") from lost

    async def _plug_in(self) -> RelayClient:
        relay = await RelayClient.connected(relay_socket(self._folder, self.place))
        # It may be starting yet.
        await relay.ask("attach", self.place, self._seed, within_s=STARTS_WITHIN_S)
        return relay


class Placed(Attended):
    """What every actor's class has that has a place: a network card, which faults on links reach, and rows for the
    events of the run."""

    def __init__(self, title: str, card: NetworkCard) -> None:
        super().__init__(title)
        self.card = card
        self.loop_watch = LoopWatch(lambda due_s, late_s: self.record_late(due_s, late_s, title))
        self._events: list[Recorded] = []

    async def records(self) -> list[Recorded]:
        """What was recorded since the last call."""
        events, self._events = self._events, []
        return events

    def patience_s(self) -> float:
        """For how long this process can be held up before others may take something of it for dead."""
        raise NotImplementedError

    def record_late(self, due_s: float, late_s: float, process: str) -> None:
        """That a process was held up, at that monotonic second."""
        details = {"late_s": late_s, "patience_s": self.patience_s()}
        self._events.append(Recorded(due_s, self.card.place, "Process", process, "Late", details))

    async def impose(self, fault: str, pairs: Pairs, effect: LinkEffect, due_s: float) -> float:
        return await self.card.impose(fault, pairs, effect, due_s)

    async def lift(self, fault: str, due_s: float) -> float:
        return await self.card.lift(fault, due_s)
