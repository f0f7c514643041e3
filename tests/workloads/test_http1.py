"""The workload's HTTP/1.1 over real loopback connections: its server, and its client to one address."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from testbed.objects.addresses import SocketAddress
from testbed.workloads.http1 import Handler, HttpClient, Request, Response, ServerProtocol
from tests.emulation.loopback import DEADLINE_S, LOOPBACK, eventually, listening, open_connections

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, DEADLINE_S))


@asynccontextmanager
async def caller_of(handler: Handler) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to a server with that handler."""
    loop = asyncio.get_running_loop()
    lost: list[None] = []

    class Watched(ServerProtocol):
        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            lost.append(None)

    server = await loop.create_server(lambda: Watched(handler), LOOPBACK, 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    try:
        yield reader, writer
    finally:
        server.close()
        writer.close()
        await eventually(lambda: lost)


async def answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Status line and body of the next answer."""
    head = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
    assert head[1].startswith(b"content-length: ")
    return head[0], await reader.readexactly(int(head[1].split()[1]))


async def get(client: HttpClient) -> int:
    return (await client.get("http://cart/", "cart", {b"x-request-id": b"7"})).status


def client_of(address: SocketAddress) -> HttpClient:
    return HttpClient(address.ip, address.port)


async def echo(request: Request) -> Response:
    return Response(200, request.path)


def test_a_body_comes_in_whole_however_it_is_cut_and_headers_go_out() -> None:
    async def handler(request: Request) -> Response:
        return Response(200, request.method + b" " + request.body, ((b"x-owner", b"me"),))

    async def test() -> None:
        async with caller_of(handler) as (reader, writer):
            for _ in range(2):
                writer.write(b"PUT /k HTTP/1.1\r\ncontent-length: 7\r\n\r\nval")
                await writer.drain()
                await asyncio.sleep(0)
                writer.write(b"ue 1")
                assert await reader.readuntil(b"\r\n\r\n") == (
                    b"HTTP/1.1 200 OK\r\nx-owner: me\r\ncontent-length: 11\r\n\r\n"
                )
                assert await reader.readexactly(11) == b"PUT value 1"

    run(test())


# --- server ------------------------------------------------------------------------------------------------------


def test_a_connection_is_kept_for_the_next_request() -> None:
    async def scenario() -> None:
        async with caller_of(echo) as (reader, writer):
            for path in (b"/a", b"/b"):
                writer.write(b"GET %b HTTP/1.1\r\nhost: x\r\n\r\n" % path)
                assert await answer(reader) == (b"HTTP/1.1 200 OK", path)

    run(scenario())


@pytest.mark.parametrize(
    ("status", "line"),
    [(200, b"200 OK"), (500, b"500 Internal Server Error"), (504, b"504 Gateway Timeout")],
)
def test_every_status_of_the_workload_has_its_reason(status: int, line: bytes) -> None:
    async def handler(request: Request) -> Response:
        return Response(status)

    async def scenario() -> None:
        async with caller_of(handler) as (reader, writer):
            writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            assert await answer(reader) == (b"HTTP/1.1 " + line, b"")

    run(scenario())


async def raw_answers(handler: Handler, *requests: bytes) -> bytes:
    """All that a server sends over one connection, until it closes it after the last of these requests."""
    async with caller_of(handler) as (reader, writer):
        heads = [b"%b / HTTP/1.1\r\nhost: x\r\n" % method for method in requests]
        writer.write(b"\r\n".join([*heads[:-1], heads[-1] + b"connection: close\r\n", b""]))
        return await reader.read()


def test_head_is_answered_with_the_length_of_the_body_but_without_it() -> None:
    async def scenario() -> None:
        async def handler(request: Request) -> Response:
            return Response(200, request.method)

        # What follows a body that nobody expects is taken for the next answer.
        assert await raw_answers(handler, b"HEAD", b"GET") == (
            b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nGET"
        )

    run(scenario())


@pytest.mark.parametrize(
    ("status", "head"),
    [(204, b"HTTP/1.1 204 No Content\r\n\r\n"), (304, b"HTTP/1.1 304 Not Modified\r\ncontent-length: 2\r\n\r\n")],
)
def test_a_status_that_has_no_body_is_sent_without_one(status: int, head: bytes) -> None:
    async def scenario() -> None:
        async def handler(request: Request) -> Response:
            return Response(status, b"hi")

        assert await raw_answers(handler, b"GET", b"GET") == head * 2

    run(scenario())


def test_header_names_are_lower_case_and_requests_do_not_share_them() -> None:
    seen: list[dict[bytes, bytes]] = []

    async def handler(request: Request) -> Response:
        seen.append(request.headers)
        return Response(200)

    async def scenario() -> None:
        async with caller_of(handler) as (reader, writer):
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nX-Request-ID: A7\r\n\r\nGET / HTTP/1.1\r\nHost: y\r\n\r\n")
            await answer(reader)
            await answer(reader)

    run(scenario())
    assert seen == [{b"host": b"x", b"x-request-id": b"A7"}, {b"host": b"y"}]


def test_a_request_in_single_bytes_is_answered_like_any_other() -> None:
    async def scenario() -> None:
        async with caller_of(echo) as (reader, writer):
            for byte in b"POST /cart HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nhi":
                writer.write(bytes([byte]))
                await asyncio.sleep(0)
            assert await answer(reader) == (b"HTTP/1.1 200 OK", b"/cart")

    run(scenario())


def test_pipelined_requests_are_answered_in_order_one_at_a_time() -> None:
    begun: list[bytes] = []

    async def scenario() -> None:
        release = asyncio.Event()

        async def handler(request: Request) -> Response:
            begun.append(request.path)
            if request.path == b"/slow":
                await release.wait()
            return Response(200, request.path)

        async with caller_of(handler) as (reader, writer):
            writer.write(b"".join(b"GET %b HTTP/1.1\r\nhost: x\r\n\r\n" % path for path in (b"/slow", b"/b", b"/c")))
            await eventually(lambda: begun)
            assert begun == [b"/slow"]
            release.set()
            assert [(await answer(reader))[1] for _ in range(3)] == [b"/slow", b"/b", b"/c"]

    run(scenario())


def test_a_malformed_request_closes_the_connection() -> None:
    async def scenario() -> None:
        async with caller_of(echo) as (reader, writer):
            writer.write(b"this is no HTTP\r\n\r\n")
            assert await reader.read() == b""

    run(scenario())


def test_work_for_a_caller_that_went_away_is_given_up() -> None:
    ends: list[str] = []

    async def scenario() -> None:
        begun = asyncio.Event()

        async def handler(request: Request) -> Response:
            begun.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                ends.append("cancelled")
                raise
            return Response(200)

        async with caller_of(handler) as (_, writer):
            writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            await begun.wait()
            writer.close()
            await eventually(lambda: ends)

    run(scenario())
    assert ends == ["cancelled"]


# --- client ------------------------------------------------------------------------------------------------------


class Proxy:
    """Answers each request with the next of `answers`; an answer that ends in `!` closes the connection after it."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.requests: list[bytes] = []
        self.connections = 0

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while True:
            self.requests.append(await reader.readuntil(b"\r\n\r\n"))
            text = self.answers.pop(0)
            writer.write(text.removesuffix(b"!"))
            if text.endswith(b"!"):
                writer.close()
                return


def test_the_client_asks_in_the_form_that_a_proxy_takes() -> None:
    proxy = Proxy(OK)

    async def scenario() -> None:
        async with listening(proxy.talk) as address:
            assert await get(client_of(address)) == 200

    run(scenario())
    assert proxy.requests == [b"GET http://cart/ HTTP/1.1\r\nhost: cart\r\nx-request-id: 7\r\n\r\n"]


def test_the_client_uses_its_connection_again() -> None:
    proxy = Proxy(OK, OK.replace(b"200", b"503"), OK)

    async def scenario() -> None:
        async with listening(proxy.talk) as address:
            client = client_of(address)
            assert [await get(client) for _ in range(3)] == [200, 503, 200]

    run(scenario())
    assert proxy.connections == 1


def test_calls_at_the_same_time_have_connections_of_their_own() -> None:
    connections: list[asyncio.StreamReader] = []

    async def scenario() -> None:
        both = asyncio.Event()

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connections.append(reader)
            if len(connections) == 2:
                both.set()
            while True:
                await reader.readuntil(b"\r\n\r\n")
                await both.wait()
                writer.write(OK)

        async with listening(talk) as address:
            client = client_of(address)
            assert list(await asyncio.gather(get(client), get(client))) == [200, 200]
            assert await get(client) == 200

    run(scenario())
    assert len(connections) == 2


def test_a_connection_that_the_proxy_wants_closed_is_not_used_again() -> None:
    proxy = Proxy(OK.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"), OK)

    async def scenario() -> None:
        async with listening(proxy.talk) as address:
            client = client_of(address)
            assert await get(client) == 200
            await eventually(lambda: open_connections(address) == 0)
            assert await get(client) == 200

    run(scenario())
    assert proxy.connections == 2


def test_a_connection_that_was_closed_while_idle_is_not_used_again() -> None:
    proxy = Proxy(OK + b"!", OK)

    async def scenario() -> None:
        async with listening(proxy.talk) as address:
            client = client_of(address)
            assert await get(client) == 200
            await eventually(lambda: open_connections(address) == 0)
            assert await get(client) == 200

    run(scenario())
    assert proxy.connections == 2


@pytest.mark.parametrize(
    "broken",
    [
        b"!",
        b"HTTP/1.1 200 OK\r\ncontent-le!",
        OK[:-1] + b"!",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok!",
    ],
    ids=["nothing", "head", "body", "chunks"],
)
def test_a_proxy_that_closes_in_mid_answer_raises_os_error(broken: bytes) -> None:
    async def scenario() -> None:
        async with listening(Proxy(broken).talk) as address:
            with pytest.raises(OSError, match="closed the connection"):
                await get(client_of(address))

    run(scenario())


def test_an_answer_that_is_no_http_raises_os_error() -> None:
    async def scenario() -> None:
        async with listening(Proxy(b"this is no HTTP\r\n\r\n!").talk) as address:
            with pytest.raises(OSError, match="no HTTP"):
                await get(client_of(address))

    run(scenario())


def test_nobody_listening_raises_os_error() -> None:
    async def scenario() -> None:
        async with listening(Proxy().talk) as address:
            pass
        with pytest.raises(OSError, match="Connect call failed"):
            await get(client_of(address))

    run(scenario())


def test_a_chunked_answer_is_there_with_its_last_chunk_and_not_before() -> None:
    async def scenario() -> None:
        last = asyncio.Event()

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            for piece in (
                b"HTTP/1.1 504 Gateway Timeout\r\ntransfer-encoding: chu",
                b"nked\r\n\r\n3\r\nabc",
                b"\r\n0\r\n",
            ):
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.01)
            await last.wait()
            writer.write(b"\r\n")
            await reader.readuntil(b"\r\n\r\n")

        async with listening(talk) as address:
            call = asyncio.create_task(get(client_of(address)))
            done, _ = await asyncio.wait([call], timeout=0.1)
            assert not done
            last.set()
            assert await call == 504

    run(scenario())
