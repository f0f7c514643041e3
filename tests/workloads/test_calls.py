"""Calls without a mesh: to virtual addresses, each logged by its caller in the words of a proxy."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import orjson
import pytest

from testbed.control.views.envoy import access_log
from testbed.objects.addresses import SocketAddress
from testbed.workloads.calls import Headers, LoggedCalls
from testbed.workloads.http1 import Request, Response, ServerProtocol
from testbed.workloads.settings import service_variables
from tests.emulation.loopback import DEADLINE_S, LOOPBACK, eventually, listening, open_connections

HEADERS: Headers = {b"x-request-id": b"r7"}


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, DEADLINE_S))


def calls_to(address: SocketAddress, log: Path) -> LoggedCalls:
    host, port = service_variables("order-book")
    return LoggedCalls("web-1", {host: address.ip, port: str(address.port)}, log)


def lines(log: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in log.read_bytes().splitlines()]


@pytest.mark.parametrize("status", [200, 500])
def test_an_answered_call_is_logged_with_the_connection_that_carried_it(tmp_path: Path, status: int) -> None:
    callers: list[str] = []

    async def answer(request: Request) -> Response:
        assert (request.path, request.headers[b"host"]) == (b"/", b"order-book")
        return Response(status, b"12345")

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        connections: list[asyncio.BaseTransport] = []

        class Watched(ServerProtocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                super().connection_made(transport)
                connections.append(transport)
                callers.append("{}:{}".format(*transport.get_extra_info("peername")))

        server = await loop.create_server(lambda: Watched(answer), LOOPBACK, 0)
        address = SocketAddress(*server.sockets[0].getsockname())
        calls = calls_to(address, tmp_path / "log")
        assert await calls.get("order-book", HEADERS) == status
        calls.close()
        server.close()
        for connection in connections:
            connection.close()
        await eventually(lambda: not open_connections(address))

    before_s = time.time()
    run(scenario())
    call, *attempts = lines(tmp_path / "log")
    assert call[access_log.KIND] == access_log.OUTBOUND
    assert set(access_log.CALL_FORMAT) | {access_log.KIND, access_log.POD, access_log.CALLER} == set(call)
    assert (call[access_log.POD], call[access_log.REQUEST_ID]) == ("web-1", "r7")
    assert (call[access_log.UPSTREAM_HOST], call[access_log.UPSTREAM_CLUSTER]) == (None, "order-book")
    assert [call[access_log.CALLER]] == callers
    assert (call[access_log.STATUS], call[access_log.FLAGS], call[access_log.BYTES_SENT]) == (status, None, 5)
    asked = b"GET / HTTP/1.1\r\nhost: order-book\r\nx-request-id: r7\r\n\r\n"
    carried = len(asked), len(Response(status, b"12345").to(b"GET"))
    assert (call[access_log.REQUEST_BYTES], call[access_log.RESPONSE_BYTES]) == carried
    assert before_s - 0.01 <= float(call[access_log.START]) <= time.time()
    assert 0 < call[access_log.DURATION_US] < DEADLINE_S * 1e6
    assert [(line[access_log.KIND], line[access_log.STATUS]) for line in attempts] == [("attempt", 500)] * (
        status == 500
    )


def test_a_call_that_breaks_or_is_given_up_is_logged_with_its_connection_and_how_long_it_took(tmp_path: Path) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)

    async def scenario() -> None:
        async with listening(hang_up) as broken:
            calls = calls_to(broken, tmp_path / "log")
            with pytest.raises(ConnectionResetError):
                await calls.get("order-book", HEADERS)
            calls.close()
        async with listening(hang) as silent:
            calls = calls_to(silent, tmp_path / "log")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(calls.get("order-book", HEADERS), 0.05)
            calls.close()

    run(scenario())
    written = lines(tmp_path / "log")
    assert [(line[access_log.KIND], line[access_log.FLAGS], line[access_log.STATUS]) for line in written] == [
        ("outbound", "UC", None),
        ("attempt", "UC", None),
        ("outbound", "DC", None),
        ("attempt", "DC", None),
    ]
    assert all(line[access_log.CALLER].startswith(f"{LOOPBACK}:") for line in written)
    assert all(50 <= line[access_log.DURATION_MS] < DEADLINE_S * 1e3 for line in written[2:])


def test_a_call_to_where_nothing_listens_is_logged_without_a_connection(tmp_path: Path) -> None:
    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise AssertionError("nobody listens here any more")

    async def scenario() -> None:
        async with listening(never) as gone:
            pass
        calls = calls_to(gone, tmp_path / "log")
        with pytest.raises(ConnectionRefusedError):
            await calls.get("order-book", HEADERS)
        calls.close()

    run(scenario())
    _, attempt = lines(tmp_path / "log")
    assert (attempt[access_log.CALLER], attempt[access_log.UPSTREAM_CLUSTER]) == (None, "order-book")
