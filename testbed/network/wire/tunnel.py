"""The way from one machine of a run to another: a head with the run's token, an answer, and then the stream itself.

Owns the opener's end (`dial`) and the form of heads. The other end is `ingress`; what is emulated on the way is not
known here.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import re
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv4Address
from typing import cast

from testbed.objects.addresses import SocketAddress

_log = logging.getLogger(__name__)

HEAD_BYTES_MAX = 4096
OPENED = b"HTTP/1.1 200 OK\r\n\r\n"

_CONNECT = re.compile(rb"CONNECT ([0-9.]{7,15}):([0-9]{1,5}) HTTP/1\.1\r\n")
_DIAL_TIMEOUT_S = 30.0
"""Longer than a caller waits. The kernel would try to connect for two minutes, with callers that are gone."""
# A neighbour without power (ARP fails after 3 s), a machine behind a dead link, an ingress whose process is gone.
_UNREACHABLE = (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ENETUNREACH, errno.ENETDOWN)


@dataclass(frozen=True, slots=True)
class Tunnel:
    """How to reach what lives on another machine: its ingress, and the token that all machines of the run share."""

    ingress: SocketAddress
    token: str = field(repr=False)


class IngressUnreachable(OSError):
    """The other machine is silent: nothing is known of the target, least of all that it refuses."""


def connect_head(target: SocketAddress) -> str:
    """Request line that opens a stream to `target`."""
    return f"CONNECT {target} HTTP/1.1"


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


async def dial(tunnel: Tunnel, request_line: str, protocol: asyncio.Protocol) -> None:
    """Send a request to an ingress; when it is granted the connection is `protocol`'s, as if it had connected itself.

    Raises IngressUnreachable when nobody answers, and OSError for everything that counts as a refusal: the target
    refused (the ingress resets then), or the ingress itself did, which is logged because a peer is never refused.
    """
    loop = asyncio.get_running_loop()
    dialling = _Dialling(tunnel, request_line, protocol, loop.create_future())
    try:
        async with asyncio.timeout(_DIAL_TIMEOUT_S):
            await loop.create_connection(lambda: dialling, tunnel.ingress.ip, tunnel.ingress.port)
            await dialling.opened
    except TimeoutError as error:
        raise IngressUnreachable(errno.ETIMEDOUT, f"the ingress {tunnel.ingress} does not answer") from error
    except OSError as error:
        if dialling.transport is None and error.errno in _UNREACHABLE:
            raise IngressUnreachable(error.errno, f"the ingress {tunnel.ingress}: {error.strerror}") from error
        raise
    finally:
        dialling.hang_up()


class _Dialling(asyncio.Protocol):
    """A connection to an ingress until it has answered."""

    def __init__(
        self, tunnel: Tunnel, request_line: str, protocol: asyncio.Protocol, opened: asyncio.Future[None]
    ) -> None:
        self.transport: asyncio.Transport | None = None
        self.opened = opened
        self._tunnel = tunnel
        self._request_line = request_line
        self._protocol = protocol
        self._received = b""
        self._handed_over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(
            f"{self._request_line}\r\nproxy-authorization: Bearer {self._tunnel.token}\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, rest = self._received.partition(b"\r\n\r\n")
        if self.opened.done() or not (end or len(head) > HEAD_BYTES_MAX):
            return
        if head + end != OPENED:
            answer = head.partition(b"\r\n")[0][:100].decode(errors="replace")
            _log.error("the ingress %s answers %r to %r", self._tunnel.ingress, answer, self._request_line)
            self._fail(ConnectionRefusedError(errno.ECONNREFUSED, answer))
            return
        assert self.transport is not None
        self._handed_over = True
        self.transport.set_protocol(self._protocol)
        self._protocol.connection_made(self.transport)
        if rest:
            self._protocol.data_received(rest)
        self.opened.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(ConnectionResetError(errno.ECONNRESET, f"the ingress {self._tunnel.ingress} ended the connection"))

    def hang_up(self) -> None:
        """Leave nothing open that was not handed over."""
        self.opened.cancel()
        if self.transport is not None and not self._handed_over:
            self.transport.abort()

    def _fail(self, error: OSError) -> None:
        if not self.opened.done():
            self.opened.set_exception(error)
