"""The network card of one place: every connection that it opens to another place passes through here.

Owns the set-up of connections and the thread that everything runs in. Who may be reached: only addresses in the
destination's own block, or one fixed target. What happens to the bytes is in `flows`; how a listener falls silent in
`listener`.
"""

from __future__ import annotations

import asyncio
import re
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from random import Random
from time import monotonic
from typing import TypeVar, cast

import uvloop

from testbed.control.objects import SocketAddress
from testbed.faults.actions import LinkEffect
from testbed.network.flows import SYN_TIMEOUT_S, Flow, Link, abort
from testbed.network.links import LinkSample, LinkTable
from testbed.network.listener import Listener
from testbed.network.scheduling import ask_to_be_punctual
from testbed.network.timer import PreciseTimer

_T = TypeVar("_T")

_CALL_TIMEOUT_S = 10.0
_EARLY_BYTES_MAX = 64 << 10
_HEAD_BYTES_MAX = 4096
_CONNECT = re.compile(rb"CONNECT ([0-9.]{7,15}):([0-9]{1,5}) HTTP/1\.1\r\n")
_OPENED = b"HTTP/1.1 200 OK\r\n\r\n"


def parse_connect(head: bytes) -> SocketAddress:
    """Where a CONNECT head, up to and including its empty line, wants to go. Raises ValueError for anything else."""
    match = _CONNECT.match(head)
    if match is None:
        raise ValueError("not `CONNECT <IPv4 address>:<port> HTTP/1.1`")
    try:
        ip = IPv4Address(match[1].decode())
    except AddressValueError as error:
        raise ValueError(str(error)) from None
    port = int(match[2])
    if not 0 < port < 65536:
        raise ValueError(f"port {port} is not in 1 .. 65535")
    return SocketAddress(str(ip), port)


Choice = Callable[[], tuple[str, SocketAddress] | None]
"""Picks a place and an address there for one connection; None when there is none."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """Where a listener leads: by CONNECT to any address in `network`, to one fixed `target`, or where `choose` says."""

    destination: str
    network: IPv4Network | None = None
    target: SocketAddress | None = None
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
        self._thread: threading.Thread | None = None
        self.openings: dict[_Opening, None] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.loop: asyncio.AbstractEventLoop
        self.timer: PreciseTimer

    def start(self) -> None:
        """Start the thread; nothing listens yet."""
        self.loop = uvloop.new_event_loop()
        self.timer = PreciseTimer(self.loop)
        self._thread = threading.Thread(target=self._run, name=f"link relay of {self.place}", daemon=True)
        self._thread.start()
        self._call(self._sample_every_second)

    def stop(self) -> None:
        """Close every listener and connection and end the thread. Samples can still be drained. May be called twice."""
        if self._thread is None:
            return
        self._call(self._close)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(_CALL_TIMEOUT_S)
        self._thread = None

    def open_path(self, destination: str, listen: SocketAddress, network: IPv4Network) -> None:
        """Take HTTP/1.1 CONNECT at `listen` for any address inside `network`, the block of the place `destination`.

        Made for Envoy's `http_11_proxy` transport socket. Raises OSError when `listen` cannot be bound.
        """
        self._call(lambda: self._listen(_Entry(destination, network=network), listen))

    def open_forward(self, destination: str, listen: SocketAddress, target: SocketAddress) -> None:
        """Take plain TCP at `listen` for one fixed target at `destination`. Raises OSError as `open_path` does."""
        self._call(lambda: self._listen(_Entry(destination, target=target), listen))

    def open_service(self, listen: SocketAddress, choose: Choice) -> None:
        """Take plain TCP at `listen` and lead each connection to where `choose` says then, or reset it.

        A destination may be this place itself, or one that a path was opened to. Nothing falls silent here: who
        connects cannot know yet where to; what stays away behind a cut is the answer. Raises OSError as `open_path`.
        """
        self._call(lambda: self._listen(_Entry(self.place, choose=choose), listen))

    def close_forward(self, listen: SocketAddress) -> None:
        """Stop listening there; what is connected stays so. Raises KeyError when nothing listens there."""
        self._call(lambda: self._listeners.pop(listen)[1].close())

    def impose(self, fault: str, pairs: Iterable[tuple[str, str]], effect: LinkEffect) -> float:
        """As `LinkTable.impose`; returns the time of `time.monotonic` at which it was in effect."""
        pairs = tuple(pairs)
        return self._call(lambda: self._change(lambda: self._table.impose(fault, pairs, effect)))

    def lift(self, fault: str) -> float:
        """As `LinkTable.lift`; returns the time of `time.monotonic` at which it was in effect."""
        return self._call(lambda: self._change(lambda: self._table.lift(fault)))

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
        async def begin() -> None:
            try:
                await self.loop.connect_accepted_socket(lambda: self._answering(entry), client)
            except OSError:
                client.close()

        self.keep(self.loop.create_task(begin()))

    def _answering(self, entry: _Entry) -> asyncio.Protocol:
        if entry.choose is None:
            return _Opening(self, entry)
        chosen = entry.choose()
        if chosen is None:
            return _Refusal()
        place, target = chosen
        paths = (path for path, _ in self._listeners.values() if path.destination == place and path.network is not None)
        return _Opening(self, replace(next(paths, _Entry(place)), network=None, target=target))

    def keep(self, task: asyncio.Task[None]) -> asyncio.Task[None]:
        # The loop holds tasks by weak references only.
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        ask_to_be_punctual()
        try:
            self.loop.run_forever()
            # What was cancelled or closed at last needs a few turns more.
            self.loop.run_until_complete(asyncio.gather(*self.tasks, return_exceptions=True))
            self.loop.run_until_complete(asyncio.sleep(0))
        finally:
            self.loop.close()

    def _call(self, function: Callable[[], _T]) -> _T:
        if self._thread is None:
            raise RuntimeError(f"the link relay of {self.place} is not running: call start() first")
        future: Future[_T] = Future()

        def run() -> None:
            try:
                future.set_result(function())
            except Exception as error:
                future.set_exception(error)

        self.loop.call_soon_threadsafe(run)
        return future.result(_CALL_TIMEOUT_S)

    def _listen(self, entry: _Entry, address: SocketAddress) -> None:
        passable = self._table.passable(self.place, entry.destination)
        try:
            listener = Listener(self.loop, address, lambda client: self._begin(entry, client))
        except OSError as error:
            message = f"the relay of {self.place} cannot listen at {address}: {error.strerror}"
            raise OSError(error.errno, message) from error
        self._listeners[address] = (entry, listener)
        if passable:
            listener.resume()
        else:
            listener.silence()

    def _change(self, change: Callable[[], None]) -> float:
        change()
        for link in self._links.values():
            quality = self._table.quality(link.source, link.destination)
            if quality != link.quality:
                self._sample(link, int(monotonic()))
                link.change(quality)
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
        for task in tuple(self.tasks):
            task.cancel()
        for opening in tuple(self.openings):
            opening.close(reset=True)
        for link in tuple(self._links.values()):
            for flow in tuple(link.flows):
                flow.close(reset=True)
            self._sample(link, int(monotonic()))
        self.timer.close()


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
            self._head_timer = self._relay.loop.call_later(
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
        if self._target is None:
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
        end = self._early.find(b"\r\n\r\n", 0, _HEAD_BYTES_MAX)
        if end < 0:
            if len(self._early) >= _HEAD_BYTES_MAX:
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
        target = self._target
        assert target is not None

        async def connect() -> None:
            try:
                await self._relay.loop.create_connection(lambda: self._backward, target.ip, target.port)
            except OSError:
                self._backward.send(self._refused, SYN_TIMEOUT_S)

        self._connecting = self._relay.keep(self._relay.loop.create_task(connect()))

    def _accepted(self) -> None:
        self._backward.send(self._open, SYN_TIMEOUT_S)

    def _refused(self) -> None:
        self.close(reset=True)

    def _open(self) -> None:
        self._done()
        if self._entry.target is None:
            self._transport.write(_OPENED)
        self._transport.set_protocol(self._forward)
        early = bytes(self._early)
        if len(early) > _EARLY_BYTES_MAX:
            self._transport.resume_reading()
        if early:
            self._forward.data_received(early)
        if self._ended:
            self._forward.eof_received()
