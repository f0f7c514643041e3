"""Connections between replicas: each opens one to every other, through the relay of its place, and sends on it.

Where they share a secret, who does not show it is not listened to: other users of the machine can connect, too.

A message that cannot leave is lost, which Raft expects: it never waits for a peer. Whoever is sent to and says nothing
for `patience_s` gets a new connection, as the old one may lead to a machine that has been off. So does at once who says
that it has started since: else its peers would find out with the first thing that they have to tell it, which may be
the vote that it asks for.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from testbed.network.wire.tunnel import OPENED, connect_head
from testbed.objects.addresses import SocketAddress

_LENGTH = struct.Struct(">I")
_WAITING_BYTES_MAX = 8 << 20
"""Of messages that a connection has not taken yet; further ones are lost."""
_RECONNECT_S = 0.1
_START_BYTES = 8


@dataclass(frozen=True, slots=True)
class Peer:
    """Where another replica listens, and the relay that leads to its place; None at the same place."""

    name: str
    address: SocketAddress
    relay: SocketAddress | None


Received = Callable[[str, bytes], None]
"""Who sent it, and what."""


class Peers:
    def __init__(
        self, name: str, peers: tuple[Peer, ...], patience_s: float, received: Received, secret: bytes = b""
    ) -> None:
        greeting = _frame(secret) + _frame(name.encode()) + _frame(os.urandom(_START_BYTES))
        self._outgoing = {peer.name: _Outgoing(greeting, peer, patience_s) for peer in peers}
        self._received = received
        self._secret = secret
        self._starts: dict[str, bytes] = {}
        """What each peer has called its start, by its name."""
        self._server: asyncio.Server | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self, listen: SocketAddress) -> None:
        """Raises OSError when the address is taken."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Incoming(self, self._secret), listen.ip, listen.port)
        self._tasks = [loop.create_task(each.stay_connected()) for each in self._outgoing.values()]

    def send(self, to: str, data: bytes) -> bool:
        """False if it is lost already."""
        return self._outgoing[to].send(data)

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._server is not None:
            self._server.close()

    def greet(self, sender: str, start: bytes) -> None:
        """A peer has opened a connection; `start` is another each time it starts."""
        if sender in self._outgoing and self._starts.get(sender, start) != start:
            self._outgoing[sender].connect_again()
        self._starts[sender] = start

    def hear(self, sender: str, data: bytes) -> None:
        if sender in self._outgoing:
            self._outgoing[sender].unheard_since_s = None
            self._received(sender, data)


def _frame(data: bytes) -> bytes:
    return _LENGTH.pack(len(data)) + data


class _Outgoing(asyncio.Protocol):
    """To one peer, again and again."""

    def __init__(self, greeting: bytes, peer: Peer, patience_s: float) -> None:
        self.unheard_since_s: float | None = None
        """When the first message left that the peer has not said anything after."""
        self._greeting = greeting
        self._peer = peer
        self._patience_s = patience_s
        self._transport: asyncio.Transport | None = None
        self._opened = asyncio.Event()
        self._closed = asyncio.Event()
        self._head = b""

    async def stay_connected(self) -> None:
        loop = asyncio.get_running_loop()
        to = self._peer.relay or self._peer.address
        while True:
            self._opened.clear()
            self._closed.clear()
            self._head = b"" if self._peer.relay else OPENED
            try:
                async with asyncio.timeout(self._patience_s):
                    await loop.create_connection(lambda: self, to.ip, to.port)
                    await self._opened.wait()
                await self._until_given_up()
            except OSError:  # a time-out is one, too
                pass
            finally:
                self._opened.clear()
                if self._transport is not None:
                    self._transport.abort()
                    self._transport = None
            await asyncio.sleep(_RECONNECT_S)

    async def _until_given_up(self) -> None:
        self.unheard_since_s = None
        while True:
            try:
                async with asyncio.timeout(self._patience_s / 2):
                    await self._closed.wait()
                return
            except TimeoutError:
                since_s = self.unheard_since_s
                if since_s is not None and time.monotonic() > since_s + self._patience_s:
                    return

    def send(self, data: bytes) -> bool:
        transport = self._transport
        # A connection that has failed is there until its task has come round to giving it up.
        if transport is None or transport.is_closing() or not self._opened.is_set():
            return False
        if transport.get_write_buffer_size() > _WAITING_BYTES_MAX:
            return False
        if self.unheard_since_s is None:
            self.unheard_since_s = time.monotonic()
        transport.write(_frame(data))
        return True

    def connect_again(self) -> None:
        """If it is connected, it is so to a process that has ended."""
        if self._opened.is_set():
            self._closed.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        if self._peer.relay:
            self._transport.write(f"{connect_head(self._peer.address)}\r\n\r\n".encode())
        else:
            self._greet()

    def data_received(self, data: bytes) -> None:
        """Of the relay: the peer says what it has to say on a connection of its own."""
        self._head += data
        if self._head == OPENED and not self._opened.is_set():
            self._greet()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed.set()

    def _greet(self) -> None:
        assert self._transport is not None
        self._transport.write(self._greeting)
        self._opened.set()


class _Incoming(asyncio.Protocol):
    """From one peer, which shows the secret and says who it is, and since which start, before anything else."""

    def __init__(self, peers: Peers, secret: bytes) -> None:
        self._peers = peers
        self._secret = secret
        self._transport: asyncio.Transport | None = None
        self._known = False
        self._sender: str | None = None
        self._greeted = False
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        at = 0
        while len(self._buffer) >= at + _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer, at)
            end = at + _LENGTH.size + length
            if len(self._buffer) < end:
                break
            frame = bytes(self._buffer[at + _LENGTH.size : end])
            at = end
            if not self._known:
                if not hmac.compare_digest(frame, self._secret):
                    assert self._transport is not None
                    self._transport.abort()
                    return
                self._known = True
            elif self._sender is None:
                self._sender = frame.decode()
            elif not self._greeted:
                self._greeted = True
                self._peers.greet(self._sender, frame)
            else:
                self._peers.hear(self._sender, frame)
        del self._buffer[:at]
