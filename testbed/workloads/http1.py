"""HTTP/1.1 as the built-in workload needs it: a server and a client to one address, over httptools and uvloop.

Parsing is httptools'. What is left out is what a general framework spends most of its time on: an emulated pod gets a
few hundred requests a second on a share of a core, and everything that it executes is cold in the caches by then.
Measured against aiohttp in both places, the workload's processes need less than half the CPU time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import cast

import httptools

REASONS = {
    200: b"OK",
    204: b"No Content",
    304: b"Not Modified",
    400: b"Bad Request",
    405: b"Method Not Allowed",
    413: b"Content Too Large",
    500: b"Internal Server Error",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
}
BODY_BYTES_MAX = 1 << 20
"""Of a request; what is beyond it is read and not kept."""


@dataclass(slots=True)
class Request:
    """Header names are lower case."""

    path: bytes = b""
    headers: dict[bytes, bytes] = field(default_factory=dict)
    keep_alive: bool = True
    method: bytes = b"GET"
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    body: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()

    def to(self, method: bytes) -> bytes:
        """The answer to a request of this method, as it is sent.

        One to HEAD has the length of the body, but no body; 204 has neither, 304 is like HEAD: a body would be taken
        for the head of the next answer (RFC 9110, 9.3.2, 15.3.5 and 15.4.5; RFC 9112, 6.3).
        """
        length = b"" if self.status == 204 else b"content-length: %d\r\n" % len(self.body)
        body = b"" if method == b"HEAD" or self.status in (204, 304) else self.body
        headers = b"".join(b"%b: %b\r\n" % header for header in self.headers) + length
        return b"HTTP/1.1 %d %b\r\n%b\r\n%b" % (self.status, REASONS[self.status], headers, body)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client was answered."""

    status: int
    body_bytes: int
    request_bytes: int
    """Of the whole message that asked, and `response_bytes` of that which answered."""
    response_bytes: int


Handler = Callable[[Request], Awaitable[Response]]


class ServerProtocol(asyncio.Protocol):
    """One connection of a caller. Requests of one connection are answered in order, one at a time."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._parser = httptools.HttpRequestParser(self)
        self._request = Request()
        self._waiting: list[Request] = []
        self._task: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            assert self._transport is not None
            self._transport.close()

    # --- called by the parser ------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._request = Request()

    def on_url(self, url: bytes) -> None:
        self._request.path += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._request.headers[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        if len(self._request.body) <= BODY_BYTES_MAX:
            self._request.body += body

    def on_message_complete(self) -> None:
        self._request.method = self._parser.get_method()
        self._request.keep_alive = self._parser.should_keep_alive()
        self._waiting.append(self._request)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._answer())

    async def _answer(self) -> None:
        assert self._transport is not None
        while self._waiting:
            request = self._waiting.pop(0)
            response = await self._handler(request)
            self._transport.write(response.to(request.method))
            if not request.keep_alive:
                self._transport.close()


class HttpClient:
    """GET requests to one address, over connections that are kept and used again, newest first."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._idle: list[Connection] = []

    async def get(self, target: str, host: str, headers: dict[bytes, bytes]) -> Answer:
        """As `get_over`, over any connection."""
        return await self.get_over(await self.connection(), target, host, headers)

    async def connection(self) -> Connection:
        """One that is free, to be given back by `get_over`. Raises OSError when none can be made."""
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
        loop = asyncio.get_running_loop()
        _, fresh = await loop.create_connection(Connection, self._host, self._port)
        return fresh

    async def get_over(self, connection: Connection, target: str, host: str, headers: dict[bytes, bytes]) -> Answer:
        """The answer, once all of it is there. `target` is a path or, to a proxy, a URL.

        Raises OSError when the connection breaks.
        """
        lines = b"".join(b"%b: %b\r\n" % header for header in headers.items())
        message = b"GET %b HTTP/1.1\r\nhost: %b\r\n%b\r\n" % (target.encode(), host.encode(), lines)
        try:
            answer, keep = await connection.request(message)
        except BaseException:
            # Also when the caller gave up: what is still to come on this connection answers nobody.
            connection.close()
            raise
        if keep:
            self._idle.append(connection)
        else:
            connection.close()
        return answer


class Connection(asyncio.Protocol):
    """One connection to the server: one request at a time. `local` is its own end, `ip:port`."""

    def __init__(self) -> None:
        self.usable = True
        self.local = ""
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._answer: asyncio.Future[tuple[Answer, bool]] | None = None
        self._body_bytes = self._sent_bytes = self._received_bytes = 0

    async def request(self, message: bytes) -> tuple[Answer, bool]:
        """The answer, and whether the connection can be used again."""
        assert self._transport is not None
        self._body_bytes, self._sent_bytes, self._received_bytes = 0, len(message), 0
        self._answer = asyncio.get_running_loop().create_future()
        self._parser = httptools.HttpResponseParser(self)
        self._transport.write(message)
        return await self._answer

    def close(self) -> None:
        assert self._transport is not None
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        ip, port = self._transport.get_extra_info("sockname")
        self.local = f"{ip}:{port}"

    def data_received(self, data: bytes) -> None:
        self._received_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(ConnectionError(f"the answer is no HTTP: {error}"))

    def connection_lost(self, exc: Exception | None) -> None:
        self.usable = False
        self._fail(exc if isinstance(exc, OSError) else ConnectionResetError("the server closed the connection"))

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)

    def on_message_complete(self) -> None:
        if self._answer is not None and not self._answer.done():
            status, carried = self._parser.get_status_code(), (self._sent_bytes, self._received_bytes)
            answer = Answer(status, self._body_bytes, *carried)
            self._answer.set_result((answer, self._parser.should_keep_alive()))

    def _fail(self, error: OSError) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
