"""The one port by which a machine of a run takes connections from the others.

Pods, sidecars and relays listen on loopback addresses, which no network reaches; relays of other machines come
through here. Owns who is let in and to where: peers that know the run's token, and only addresses in the blocks of
places that live on this machine. Nothing is emulated here: delay, cuts and silence belong to the relay that dialled.

The token protects against other users of the network, other runs and scanners: without it the port answers 407 and
nothing else. It travels in clear text and so does the traffic, as with Ray's own token: who can read the machines'
network can read both, and use the token for as long as the run lasts.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import re
import struct
from collections.abc import Iterable
from hmac import compare_digest
from ipaddress import IPv4Address, IPv4Network
from random import Random
from time import monotonic_ns, time_ns
from typing import cast

from testbed.network.directed_link import Link
from testbed.network.wire.flows import Flow, abort
from testbed.network.wire.loop_thread import LoopThread
from testbed.network.wire.timer import PreciseTimer
from testbed.network.wire.tunnel import HEAD_BYTES_MAX, OPENED, parse_connect
from testbed.objects.addresses import SocketAddress
from testbed.objects.places import LinkQuality

_log = logging.getLogger(__name__)

CLOCK = "CLOCK / HTTP/1.1"
"""Request line after which every ping of `PING_BYTES` is answered with a `PONG`."""
PING_BYTES = 8
PONG = struct.Struct(">8sqq")
"""The ping as it came, and when it came: `time.monotonic_ns` and `time.time_ns` of the ingress's machine."""

_AUTHORIZATION = re.compile(rb"\r\nproxy-authorization: Bearer ([!-~]*)\r\n", re.IGNORECASE)


class Ingress:
    """The ingress of one machine, in a thread of its own. `networks` are the blocks of the places that live there."""

    def __init__(self, token: str, networks: Iterable[IPv4Network], *, head_timeout_s: float = 5.0) -> None:
        assert token, "an empty token lets everybody in"
        self.token = token.encode()
        self.networks = tuple(networks)
        self.head_timeout_s = head_timeout_s
        self.refused = 0
        """Connections that did not show the token: other peers than this run's know the port."""
        self.connections: dict[_Visit | _Clock, None] = {}
        self.thread = LoopThread("ingress")
        self.timer: PreciseTimer
        self.link: Link
        self._server: asyncio.Server

    def start(self, ip: str, port: int = 0) -> SocketAddress:
        """Listen at this address of the machine and no other; returns it with the port that was chosen for 0.

        Raises ValueError for 0.0.0.0 and OSError when the address cannot be bound.
        """
        if IPv4Address(ip).is_unspecified:
            raise ValueError(f"{ip} is every address of the machine: give the one at which its peers reach it")
        self.thread.start()
        self.timer = self.thread.call(lambda: PreciseTimer(self.thread.tasks.loop))
        self.link = Link("peer", "here", LinkQuality(), Random(0))
        try:
            self._server = self.thread.wait(self._listen(ip, port))
        except OSError as error:
            self.thread.stop(self.timer.close)
            raise OSError(error.errno, f"the ingress cannot listen at {ip}:{port}: {error.strerror}") from error
        return SocketAddress(*self._server.sockets[0].getsockname())

    def stop(self) -> None:
        """Stop listening and reset every connection. May be called twice."""
        self.thread.stop(self._close)

    # --- in the ingress's thread -------------------------------------------------------------------------------

    async def _listen(self, ip: str, port: int) -> asyncio.Server:
        return await self.thread.tasks.loop.create_server(lambda: _Visit(self), ip, port, backlog=1024)

    def _close(self) -> None:
        self._server.close()
        for connection in tuple(self.connections):
            connection.abort()
        for traffic in tuple(self.link.traffic):
            traffic.close(reset=True)
        self.timer.close()


class _Visit(asyncio.Protocol):
    """A connection from its first byte until its head is granted and, for a stream, its target has accepted."""

    def __init__(self, ingress: Ingress) -> None:
        self._ingress = ingress
        self._received = bytearray()
        self._known = False
        self._inward: Flow | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport
        self._head_timer = ingress.thread.tasks.loop.call_later(
            ingress.head_timeout_s, self._refuse, b"408 Request Timeout"
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._ingress.connections[self] = None

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._known:
            # Who sends before the answer has to wait for it: nothing here bounds how much that is.
            self._transport.pause_reading()
        elif not self._transport.is_closing():
            self._read_head()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._done()
        if self._connecting is not None:
            self._connecting.cancel()
        if self._inward is not None:
            self._inward.close()

    def abort(self) -> None:
        abort(self._transport)

    def _done(self) -> None:
        self._ingress.connections.pop(self, None)
        self._head_timer.cancel()

    def _read_head(self) -> None:
        end = self._received.find(b"\r\n\r\n", 0, HEAD_BYTES_MAX)
        if end < 0:
            if len(self._received) >= HEAD_BYTES_MAX:
                self._refuse(b"431 Request Header Fields Too Large")
            return
        head = bytes(self._received[: end + 4])
        del self._received[: end + 4]
        shown = _AUTHORIZATION.search(head)
        if shown is None or not compare_digest(shown[1], self._ingress.token):
            self._refuse(b"407 Proxy Authentication Required\r\nproxy-authenticate: Bearer")
            return
        self._known = True
        self._head_timer.cancel()
        if head.startswith(f"{CLOCK}\r\n".encode()):
            self._hand_over(_Clock(self._ingress))
            return
        try:
            target = parse_connect(head)
        except ValueError:
            self._refuse(b"400 Bad Request")
            return
        if not any(IPv4Address(target.ip) in network for network in self._ingress.networks):
            self._refuse(b"403 Forbidden")
            return
        self._connecting = self._ingress.thread.tasks.keep(self._connect(target))

    def _refuse(self, status: bytes) -> None:
        self._head_timer.cancel()
        if not self._known:
            self._ingress.refused += 1
        self._transport.write(b"HTTP/1.1 " + status + b"\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        self._transport.close()

    async def _connect(self, target: SocketAddress) -> None:
        # Two flows over a link without any quality: a relay's care for ends, resets and full buffers, and no delay.
        inward = self._inward = Flow(self._ingress.link, self._ingress.timer)
        outward = Flow(self._ingress.link, self._ingress.timer, lambda: self._hand_over(inward))
        inward.peer, outward.peer = outward, inward
        try:
            await self._ingress.thread.tasks.loop.create_connection(lambda: outward, target.ip, target.port)
        except OSError as error:
            if error.errno != errno.ECONNREFUSED:
                _log.warning("the ingress cannot connect to %s: %s", target, error)
            # No answer but a reset: what the opener would have got from the target itself.
            self.abort()

    def _hand_over(self, protocol: Flow | _Clock) -> None:
        self._done()
        transport, early = self._transport, bytes(self._received)
        transport.write(OPENED)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if early:
            transport.resume_reading()
            protocol.data_received(early)


class _Clock(asyncio.Protocol):
    """Tells a peer what time it is here."""

    def __init__(self, ingress: Ingress) -> None:
        self._ingress = ingress
        self._received = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._ingress.connections[self] = None

    def data_received(self, data: bytes) -> None:
        monotonic, epoch = monotonic_ns(), time_ns()
        self._received += data
        while len(self._received) >= PING_BYTES:
            ping, self._received = self._received[:PING_BYTES], self._received[PING_BYTES:]
            self._transport.write(PONG.pack(ping, monotonic, epoch))

    def connection_lost(self, error: Exception | None) -> None:
        self._ingress.connections.pop(self, None)

    def abort(self) -> None:
        abort(self._transport)
