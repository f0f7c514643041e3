"""A connection until it is open: what its caller asks for, and the handshake, which takes the link as data does.

Who may be reached is said by the entry at which the caller came in. What happens to the bytes then is in `flows`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING, cast

from testbed.network.wire.flows import SYN_TIMEOUT_S, Flow, abort
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

if TYPE_CHECKING:
    from testbed.network.wire.attachment import Attachment

_log = logging.getLogger(__name__)

_EARLY_BYTES_MAX = 64 << 10


Choice = Callable[[SocketAddress], tuple[str, SocketAddress] | None]
"""Picks a place and an address there for one connection, given where it comes from; None when there is none."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a listener leads: by CONNECT to any address in `network`, to one fixed `target`, or where `choose` says."""

    destination: str
    network: IPv4Network | None = None
    target: SocketAddress | None = None
    tunnel: Tunnel | None = None
    choose: Choice | None = None


class Refusal(asyncio.Protocol):
    """Resets a connection that leads nowhere."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        abort(cast(asyncio.Transport, transport))


class Opening(asyncio.Protocol):
    """The client's end of a connection until it is open: what is asked for, then one round trip.

    The handshake travels like data: the SYN over the forward flow, the answer (accepted or refused) back. So it waits
    for a link that is cut on the way.
    """

    def __init__(self, attachment: Attachment, entry: Entry) -> None:
        self._attachment = attachment
        self._entry = entry
        self._target = entry.target
        self._early = bytearray()
        self._ended = False
        self._silent = False
        self._forward = Flow(attachment.link(attachment.place, entry.destination), attachment.timer)
        # Connected, the flow sends the answer first: nothing that the target says can overtake it.
        backward = attachment.link(entry.destination, attachment.place)
        self._backward = Flow(backward, attachment.timer, self._accepted)
        self._forward.peer, self._backward.peer = self._backward, self._forward
        self._connecting: asyncio.Task[None] | None = None
        self._head_timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport
        attachment.openings[self] = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._forward.connection_made(transport)
        if self._target is None:
            self._head_timer = self._attachment.tasks.loop.call_later(
                self._attachment.head_timeout_s, self._refuse, b"408 Request Timeout"
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
        if self in self._attachment.openings:
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
        self._attachment.openings.pop(self, None)
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
        self._connecting = self._attachment.tasks.keep(self._reach())

    async def _reach(self) -> None:
        target, tunnel = self._target, self._entry.tunnel
        assert target is not None
        try:
            if tunnel is None:
                await self._attachment.tasks.loop.create_connection(lambda: self._backward, target.ip, target.port)
            else:
                await dial(tunnel, connect_head(target), self._backward)
        except IngressUnreachable as error:
            _log.warning("%s cannot reach %s: %s", self._attachment.place, self._entry.destination, error.strerror)
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
