"""One GET, say, to whoever listens, on a connection of its own: what probes and checks ask. Needs no thread meanwhile.

Parsing is httptools'. What the built-in workload needs, connections that are kept, is `http1`.
"""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import httptools

from testbed.objects.addresses import SocketAddress

_READ_BYTES = 64 << 10


class BrokenAnswer(OSError):
    """What came is no HTTP, or ended before it was whole."""


@dataclass(slots=True)
class Reply:
    """Header names are lower case; the body may be cut off."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)


async def get(
    server: SocketAddress | Path,
    path: str,
    *,
    user_agent: str = "testbed",
    body_bytes_max: int = 64 << 10,
    method: str = "GET",
    body: bytes = b"",
) -> Reply:
    """The answer, once all of it is there or `body_bytes_max` of its body. `server` is an address or a Unix socket.

    Has no time-out of its own. Raises OSError when the connection fails, breaks, or answers no HTTP.
    """
    loop, answer = asyncio.get_running_loop(), _Answer()
    with await connection(server) as connected:
        await _send(loop, connected, _request(server, path, user_agent, method, len(body)) + body)
        while not (answer.complete or len(answer.reply.body) >= body_bytes_max):
            await _readable(loop, connected)
            answer.take(connected.recv(_READ_BYTES))
    return answer.reply


async def connection(server: SocketAddress | Path) -> socket.socket:
    """An open one, as a bare socket: a transport with streams takes three times the CPU, some hundred times a second.

    Raises OSError.
    """
    family, address = (
        (socket.AF_UNIX, str(server)) if isinstance(server, Path) else (socket.AF_INET, (server.ip, server.port))
    )
    connecting = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        if connecting.connect_ex(address) and not _is_connected(connecting):
            await asyncio.get_running_loop().sock_connect(connecting, address)
    except BaseException:
        connecting.close()
        raise
    return connecting


def _is_connected(connecting: socket.socket) -> bool:
    """On the same machine the answer is there as soon as it is asked for, without a round of the event loop."""
    try:
        connecting.getpeername()
    except OSError:
        return False
    return True


@lru_cache(maxsize=4096)
def _request(server: SocketAddress | Path, path: str, user_agent: str, method: str, body_bytes: int) -> bytes:
    host = "localhost" if isinstance(server, Path) else str(server)
    length = f"content-length: {body_bytes}\r\n" if body_bytes else ""
    return (
        f"{method} {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: {user_agent}\r\naccept: */*\r\n"
        f"{length}connection: close\r\n\r\n".encode()
    )


async def _send(loop: asyncio.AbstractEventLoop, connected: socket.socket, data: bytes) -> None:
    try:
        sent = connected.send(data)
    except BlockingIOError:
        sent = 0
    if sent < len(data):
        await loop.sock_sendall(connected, data[sent:])


async def _readable(loop: asyncio.AbstractEventLoop, connected: socket.socket) -> None:
    """Without a first try to read, as `sock_recv` has it: nobody answers at once."""
    readable: asyncio.Future[None] = loop.create_future()
    loop.add_reader(connected, _answered, readable)
    try:
        await readable
    finally:
        loop.remove_reader(connected)


def _answered(readable: asyncio.Future[None]) -> None:
    if not readable.done():
        readable.set_result(None)


class _Answer:
    """An answer as it comes in. An interim one (1xx) is none."""

    def __init__(self) -> None:
        self.reply = Reply()
        self.complete = False
        self._parser = httptools.HttpResponseParser(self)

    def take(self, data: bytes) -> None:
        """Raises BrokenAnswer."""
        if not data:
            # Without a length, the end of the connection is the end of the body.
            headers = self.reply.headers
            if not self.reply.status or "content-length" in headers or "transfer-encoding" in headers:
                raise BrokenAnswer("the connection ended before the answer did")
            self.complete = True
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.complete = True
        except httptools.HttpParserError as error:
            if not self.complete:
                raise BrokenAnswer(f"the answer is no HTTP: {error}") from None

    # --- called by the parser ------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if not self.complete:
            self.reply = Reply()

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.complete:
            self.reply.headers.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))

    def on_headers_complete(self) -> None:
        if not self.complete:
            self.reply.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        if not self.complete:
            self.reply.body += body

    def on_message_complete(self) -> None:
        self.complete = self.complete or self.reply.status >= 200 or self.reply.status == 101
