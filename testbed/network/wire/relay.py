"""The network card of one place: every connection that it opens to another place passes through here.

Owns the set-up of connections and the thread that everything runs in. Who may be reached: only addresses in the
destination's own block, or one fixed target; on another machine, through that machine's ingress. By whom: by no other
user of this machine. What happens to the bytes is in `flows`; how a listener falls silent in `listener`; what is said
to an ingress in `tunnel`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from random import Random
from time import monotonic
from typing import cast

from testbed.faults.effects import LinkEffect
from testbed.network.directed_link import Link
from testbed.network.links import LinkSample, LinkTable
from testbed.network.wire.clock_probe import ClockReading, RemoteClock
from testbed.network.wire.flows import ABORTIVE_CLOSE, SYN_TIMEOUT_S, Flow, abort
from testbed.network.wire.listener import Listener
from testbed.network.wire.loop_thread import LoopThread
from testbed.network.wire.peer import PeerOwners
from testbed.network.wire.timer import PreciseTimer
from testbed.network.wire.tunnel import (
    HEAD_BYTES_MAX,
    OPENED,
    IngressUnreachable,
    Tunnel,
    connect_head,
    dial,
    parse_connect,
)
from testbed.objects.addresses import SocketAddress

_log = logging.getLogger(__name__)

_EARLY_BYTES_MAX = 64 << 10
_UNDERLAY_PERIOD_S = 1.0
_UNDERLAY_PINGS = 10


Choice = Callable[[SocketAddress], tuple[str, SocketAddress] | None]
"""Picks a place and an address there for one connection, given where it comes from; None when there is none."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """Where a listener leads: by CONNECT to any address in `network`, to one fixed `target`, or where `choose` says."""

    destination: str
    network: IPv4Network | None = None
    target: SocketAddress | None = None
    tunnel: Tunnel | None = None
    choose: Choice | None = None


class LinkRelay:
    """The relay of one place, in a thread of its own. All methods block shortly and may be called from any thread.

    The table is the relay's alone from `start` on: change it by `impose` and `lift` only. `seed` fixes the choices of
    jitter and loss, for each link on its own.
    """

    def __init__(self, place: str, table: LinkTable, *, seed: int, head_timeout_s: float = 5.0) -> None:
        self.place = place
        self.head_timeout_s = head_timeout_s
        self._table = table
        self._seed = seed
        self._links: dict[tuple[str, str], Link] = {}
        self._listeners: dict[SocketAddress, tuple[_Entry, Listener]] = {}
        self._samples: deque[LinkSample] = deque()
        self._underlays: dict[SocketAddress, _Underlay] = {}
        self.openings: dict[_Opening, None] = {}
        self.refused = 0
        """Connections of other users of the machine."""
        self._owners: PeerOwners
        self.thread = LoopThread(f"link relay of {place}")
        self.timer: PreciseTimer

    def start(self) -> None:
        """Start the thread; nothing listens yet."""
        self.thread.start()
        self.timer = self.thread.call(lambda: PreciseTimer(self.thread.loop))
        self._owners = PeerOwners()
        self.thread.call(self._sample_every_second)

    def stop(self) -> None:
        """Close every listener and connection and end the thread. Samples can still be drained. May be called twice."""
        self.thread.stop(self._close)

    def open_path(
        self, destination: str, listen: SocketAddress, network: IPv4Network, tunnel: Tunnel | None = None
    ) -> None:
        """Take HTTP/1.1 CONNECT at `listen` for any address inside `network`, the block of the place `destination`.

        Made for Envoy's `http_11_proxy` transport socket. `tunnel` leads to the machine of a destination that does not
        live on this one; what the network between the two takes is measured, and is part of the declared delay. While
        that machine does not answer nobody is: neither opened nor refused. Raises OSError when `listen` cannot be
        bound.
        """
        self.thread.call(lambda: self._listen(_Entry(destination, network=network, tunnel=tunnel), listen))

    def open_forward(
        self, destination: str, listen: SocketAddress, target: SocketAddress, tunnel: Tunnel | None = None
    ) -> None:
        """Take plain TCP at `listen` for one fixed target at `destination`; the rest is as with `open_path`."""
        self.thread.call(lambda: self._listen(_Entry(destination, target=target, tunnel=tunnel), listen))

    def open_service(self, listen: SocketAddress, choose: Choice) -> None:
        """Take plain TCP at `listen` and lead each connection to where `choose` says then, or reset it.

        A destination may be this place itself, or one that a path was opened to. Nothing falls silent here: who
        connects cannot know yet where to; what stays away behind a cut is the answer. Raises OSError as `open_path`.
        """
        self.thread.call(lambda: self._listen(_Entry(self.place, choose=choose), listen))

    def close_forward(self, listen: SocketAddress) -> None:
        """Stop listening there; what is connected stays so. Raises KeyError when nothing listens there."""
        self.thread.call(lambda: self._listeners.pop(listen)[1].close())

    def impose(self, fault: str, pairs: Iterable[tuple[str, str]], effect: LinkEffect) -> float:
        """As `LinkTable.impose`; returns the time of `time.monotonic` at which it was in effect."""
        pairs = tuple(pairs)
        return self.thread.call(lambda: self._change(lambda: self._table.impose(fault, pairs, effect)))

    def lift(self, fault: str) -> float:
        """As `LinkTable.lift`; returns the time of `time.monotonic` at which it was in effect."""
        return self.thread.call(lambda: self._change(lambda: self._table.lift(fault)))

    def drain_samples(self) -> list[LinkSample]:
        """Samples of the whole seconds since the last call; after `stop`, of the broken last second too."""
        drained = []
        while self._samples:
            drained.append(self._samples.popleft())
        return drained

    # --- in the relay's thread ---------------------------------------------------------------------------------

    def link(self, source: str, destination: str) -> Link:
        """The state of one direction. Raises KeyError for an unknown place."""
        pair = (source, destination)
        if pair not in self._links:
            random = Random(f"{self._seed}/{self.place}/{source}/{destination}")
            self._links[pair] = Link(source, destination, self._table.quality(*pair), random)
        return self._links[pair]

    def _begin(self, entry: _Entry, client: socket.socket) -> None:
        if self._owners.uid(client) not in (os.geteuid(), None):
            self.refused += 1
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORTIVE_CLOSE)
            client.close()
            return

        async def begin() -> None:
            try:
                caller = SocketAddress(*client.getpeername())
                await self.thread.loop.connect_accepted_socket(lambda: self._answering(entry, caller), client)
            except OSError:
                client.close()

        self.thread.keep(begin())

    def _answering(self, entry: _Entry, caller: SocketAddress) -> asyncio.Protocol:
        if entry.choose is None:
            return _Opening(self, entry)
        chosen = entry.choose(caller)
        if chosen is None:
            return _Refusal()
        place, target = chosen
        paths = (path for path, _ in self._listeners.values() if path.destination == place and path.network is not None)
        return _Opening(self, replace(next(paths, _Entry(place)), network=None, target=target))

    def _listen(self, entry: _Entry, address: SocketAddress) -> None:
        passable = self._table.passable(self.place, entry.destination)
        try:
            listener = Listener(self.thread.loop, address, lambda client: self._begin(entry, client))
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
            self._underlays[tunnel.ingress] = _Underlay(self.thread, tunnel)
        links = self.link(self.place, destination), self.link(destination, self.place)
        self._underlays[tunnel.ingress].carry(links)

    def _change(self, change: Callable[[], None]) -> float:
        change()
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
        return monotonic()

    def _sample(self, link: Link, second: int) -> None:
        sample = link.take_sample(second)
        if sample is not None and link.source != link.destination:
            self._samples.append(sample)

    def _sample_every_second(self) -> None:
        ending = int(monotonic())

        def tick() -> None:
            for link in self._links.values():
                self._sample(link, ending)
            self._sample_every_second()

        self.timer.call_at(ending + 1.0, tick)

    def _close(self) -> None:
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
            self._sample(link, int(monotonic()))
        self.timer.close()
        self._owners.close()


class _Underlay:
    """What the real network to another machine takes one way, told to all links that it carries.

    Half the shortest of the last round trips: longer ones waited for a core somewhere. The first are asked for in a
    row, so that the estimate is good at once. Without answers the last one stays.
    """

    def __init__(self, thread: LoopThread, tunnel: Tunnel) -> None:
        self._links: dict[Link, None] = {}
        self._round_trips_s: deque[float] = deque(maxlen=_UNDERLAY_PINGS)
        self._clock = RemoteClock(thread, tunnel, _UNDERLAY_PERIOD_S, self._heard)
        self._clock.start()

    def carry(self, links: Iterable[Link]) -> None:
        self._links.update(dict.fromkeys(links))
        self._tell()

    def close(self) -> None:
        self._clock.close()

    def _heard(self, reading: ClockReading) -> None:
        self._round_trips_s.append(reading.round_trip_s)
        if len(self._round_trips_s) < _UNDERLAY_PINGS:
            self._clock.ask()
        self._tell()

    def _tell(self) -> None:
        for link in self._links:
            link.underlay_s = min(self._round_trips_s, default=0.0) / 2


class _Refusal(asyncio.Protocol):
    """Resets a connection that leads nowhere."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        abort(cast(asyncio.Transport, transport))


class _Opening(asyncio.Protocol):
    """The client's end of a connection until it is open: what is asked for, then one round trip.

    The handshake travels like data: the SYN over the forward flow, the answer (accepted or refused) back. So it waits
    for a link that is cut on the way.
    """

    def __init__(self, relay: LinkRelay, entry: _Entry) -> None:
        self._relay = relay
        self._entry = entry
        self._target = entry.target
        self._early = bytearray()
        self._ended = False
        self._silent = False
        self._forward = Flow(relay.link(relay.place, entry.destination), relay.timer)
        # Connected, the flow sends the answer first: nothing that the target says can overtake it.
        self._backward = Flow(relay.link(entry.destination, relay.place), relay.timer, self._accepted)
        self._forward.peer, self._backward.peer = self._backward, self._forward
        self._connecting: asyncio.Task[None] | None = None
        self._head_timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport
        relay.openings[self] = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._forward.connection_made(transport)
        if self._target is None:
            self._head_timer = self._relay.thread.loop.call_later(
                self._relay.head_timeout_s, self._refuse, b"408 Request Timeout"
            )
        else:
            self._forward.send(self._connect, SYN_TIMEOUT_S)

    def data_received(self, data: bytes) -> None:
        self._early += data
        if self._target is None:
            self._read_head()
        if len(self._early) > _EARLY_BYTES_MAX and not self._transport.is_closing():
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        self._ended = True
        # A client that closes looks like one that has only said all, until something is written to it.
        if self._target is None or self._silent:
            self.close()
        return True

    def connection_lost(self, error: Exception | None) -> None:
        if self in self._relay.openings:
            self._done()
            if self._connecting is not None:
                self._connecting.cancel()
            self._forward.connection_lost(error)

    def close(self, *, reset: bool = False) -> None:
        """Give up on the connection."""
        self._done()
        if self._connecting is not None:
            self._connecting.cancel()
        self._forward.close(reset=reset)

    def _done(self) -> None:
        self._relay.openings.pop(self, None)
        if self._head_timer is not None:
            self._head_timer.cancel()

    def _read_head(self) -> None:
        end = self._early.find(b"\r\n\r\n", 0, HEAD_BYTES_MAX)
        if end < 0:
            if len(self._early) >= HEAD_BYTES_MAX:
                self._refuse(b"431 Request Header Fields Too Large")
            return
        try:
            target = parse_connect(bytes(self._early[: end + 4]))
        except ValueError:
            self._refuse(b"400 Bad Request")
            return
        assert self._entry.network is not None
        if IPv4Address(target.ip) not in self._entry.network:
            self._refuse(b"403 Forbidden")
            return
        del self._early[: end + 4]
        self._target = target
        if self._head_timer is not None:
            self._head_timer.cancel()
        self._forward.send(self._connect, SYN_TIMEOUT_S)

    def _refuse(self, status: bytes) -> None:
        self._transport.write(b"HTTP/1.1 " + status + b"\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        self.close()

    def _connect(self) -> None:
        self._connecting = self._relay.thread.keep(self._reach())

    async def _reach(self) -> None:
        target, tunnel = self._target, self._entry.tunnel
        assert target is not None
        try:
            if tunnel is None:
                await self._relay.thread.loop.create_connection(lambda: self._backward, target.ip, target.port)
            else:
                await dial(tunnel, connect_head(target), self._backward)
        except IngressUnreachable as error:
            _log.warning("%s cannot reach %s: %s", self._relay.place, self._entry.destination, error.strerror)
            self._silent = True
            if self._ended:
                self.close()
        except OSError:
            self._answer(self._refused)

    def _accepted(self) -> None:
        self._answer(self._open)

    def _answer(self, event: Callable[[], object]) -> None:
        # A tunnel takes two real round trips (TCP's, the head's), and each link has paid for one way only.
        self._backward.send(event, SYN_TIMEOUT_S, elapsed_s=2 * self._backward.link.underlay_s)

    def _refused(self) -> None:
        self.close(reset=True)

    def _open(self) -> None:
        self._done()
        if self._entry.target is None:
            self._transport.write(OPENED)
        self._transport.set_protocol(self._forward)
        early = bytes(self._early)
        if len(early) > _EARLY_BYTES_MAX:
            self._transport.resume_reading()
        if early:
            self._forward.data_received(early)
        if self._ended:
            self._forward.eof_received()
