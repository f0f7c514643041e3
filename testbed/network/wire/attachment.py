"""What one place has at the link relay of its machine: where it listens, and every connection that it opens to others.

Who may be reached: only addresses in the destination's own block, or one fixed target; on another machine, through
that machine's ingress. By whom: by no other user of this machine. How a connection opens is in `opening`, what happens
to its bytes in `flows`, how a listener falls silent in `listener`.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Network
from random import Random
from time import monotonic

from testbed.network.directed_link import Link
from testbed.network.links import LinkSample, LinkTable
from testbed.network.wire.flows import ABORTIVE_CLOSE
from testbed.network.wire.listener import Listener
from testbed.network.wire.loop_thread import Tasks
from testbed.network.wire.opening import Choice, Entry, Opening, Refusal
from testbed.network.wire.peer import PeerOwners
from testbed.network.wire.timer import PreciseTimer
from testbed.network.wire.tunnel import Tunnel
from testbed.network.wire.underlay import Underlay
from testbed.objects.addresses import SocketAddress


class Attachment:
    """Made by `LinkRelay.attach`, whose loop, timer and table it shares. For the loop's thread only.

    `seed` fixes the choices of jitter and loss, for each link on its own.
    """

    def __init__(
        self,
        place: str,
        tasks: Tasks,
        timer: PreciseTimer,
        owners: PeerOwners,
        table: LinkTable,
        keep_sample: Callable[[LinkSample], object],
        *,
        seed: int,
        head_timeout_s: float,
    ) -> None:
        self.place = place
        self.tasks = tasks
        self.timer = timer
        self.head_timeout_s = head_timeout_s
        self._owners = owners
        self._table = table
        self._keep_sample = keep_sample
        self._seed = seed
        self._links: dict[tuple[str, str], Link] = {}
        self._listeners: dict[SocketAddress, tuple[Entry, Listener]] = {}
        self._underlays: dict[SocketAddress, Underlay] = {}
        self.openings: dict[Opening, None] = {}
        self.refused = 0
        """Connections of other users of the machine."""

    def open_path(
        self, destination: str, listen: SocketAddress, network: IPv4Network, tunnel: Tunnel | None = None
    ) -> None:
        """Take HTTP/1.1 CONNECT at `listen` for any address inside `network`, the block of the place `destination`.

        Made for Envoy's `http_11_proxy` transport socket. `tunnel` leads to the machine of a destination that does not
        live on this one; what the network between the two takes is measured, and is part of the declared delay. While
        that machine does not answer nobody is: neither opened nor refused. Raises OSError when `listen` cannot be
        bound.
        """
        self._listen(Entry(destination, network=network, tunnel=tunnel), listen)

    def open_forward(
        self, destination: str, listen: SocketAddress, target: SocketAddress, tunnel: Tunnel | None = None
    ) -> None:
        """Take plain TCP at `listen` for one fixed target at `destination`; the rest is as with `open_path`."""
        self._listen(Entry(destination, target=target, tunnel=tunnel), listen)

    def open_service(self, listen: SocketAddress, choose: Choice) -> None:
        """Take plain TCP at `listen` and lead each connection to where `choose` says then, or reset it.

        A destination may be this place itself, or one that a path was opened to. Nothing falls silent here: who
        connects cannot know yet where to; what stays away behind a cut is the answer. Raises OSError as `open_path`.
        """
        self._listen(Entry(self.place, choose=choose), listen)

    def listens_at(self, address: SocketAddress) -> bool:
        return address in self._listeners

    def close_forward(self, listen: SocketAddress) -> None:
        """Stop listening there; what is connected stays so. Raises KeyError when nothing listens there."""
        self._listeners.pop(listen)[1].close()

    def close(self) -> None:
        """Close every listener and reset every connection."""
        for _, listener in self._listeners.values():
            listener.close()
        self._listeners.clear()
        for underlay in self._underlays.values():
            underlay.close()
        self._underlays.clear()
        for opening in tuple(self.openings):
            opening.close(reset=True)
        for link in tuple(self._links.values()):
            for traffic in tuple(link.traffic):
                traffic.close(reset=True)
        self.take_samples(int(monotonic()))

    # --- for the relay -----------------------------------------------------------------------------------------

    def link(self, source: str, destination: str) -> Link:
        """The state of one direction. Raises KeyError for an unknown place."""
        pair = (source, destination)
        if pair not in self._links:
            random = Random(f"{self._seed}/{self.place}/{source}/{destination}")
            self._links[pair] = Link(source, destination, self._table.quality(*pair), random)
        return self._links[pair]

    def table_changed(self) -> None:
        """Have links and listeners be as the table says now."""
        for link in self._links.values():
            quality = self._table.quality(link.source, link.destination)
            if quality != link.quality:
                self._sample(link, int(monotonic()))
                link.change(quality, monotonic())
        for entry, listener in self._listeners.values():
            passable = self._table.passable(self.place, entry.destination)
            if passable and listener.silent:
                listener.resume()
            elif not passable and not listener.silent:
                listener.silence()

    def take_samples(self, second: int) -> None:
        for link in self._links.values():
            self._sample(link, second)

    # --- connections -------------------------------------------------------------------------------------------

    def _begin(self, entry: Entry, client: socket.socket) -> None:
        if self._owners.uid(client) not in (os.geteuid(), None):
            self.refused += 1
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORTIVE_CLOSE)
            client.close()
            return

        async def begin() -> None:
            try:
                caller = SocketAddress(*client.getpeername())
                await self.tasks.loop.connect_accepted_socket(lambda: self._answering(entry, caller), client)
            except OSError:
                client.close()

        self.tasks.keep(begin())

    def _answering(self, entry: Entry, caller: SocketAddress) -> asyncio.Protocol:
        if entry.choose is None:
            return Opening(self, entry)
        chosen = entry.choose(caller)
        if chosen is None:
            return Refusal()
        place, target = chosen
        paths = (path for path, _ in self._listeners.values() if path.destination == place and path.network is not None)
        return Opening(self, replace(next(paths, Entry(place)), network=None, target=target))

    def _listen(self, entry: Entry, address: SocketAddress) -> None:
        passable = self._table.passable(self.place, entry.destination)
        try:
            listener = Listener(self.tasks.loop, address, lambda client: self._begin(entry, client))
        except OSError as error:
            message = f"the relay of {self.place} cannot listen at {address}: {error.strerror}"
            raise OSError(error.errno, message) from error
        self._listeners[address] = (entry, listener)
        if entry.tunnel is not None:
            self._measure(entry.destination, entry.tunnel)
        if passable:
            listener.resume()
        else:
            listener.silence()

    def _measure(self, destination: str, tunnel: Tunnel) -> None:
        if tunnel.ingress not in self._underlays:
            self._underlays[tunnel.ingress] = Underlay(self.tasks, tunnel)
        links = self.link(self.place, destination), self.link(destination, self.place)
        self._underlays[tunnel.ingress].carry(links)

    def _sample(self, link: Link, second: int) -> None:
        sample = link.take_sample(second)
        if sample is not None and link.source != link.destination:
            self._keep_sample(sample)
