"""Servers on loopback that live as long as a test, and waiting for a condition with a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from time import monotonic

import psutil

from testbed.objects.addresses import SocketAddress

DEADLINE_S = 30.0
"""Nothing here takes a tenth of that, but for a machine that is busy with much else."""
LOOPBACK = "127.0.0.1"

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def eventually(condition: Callable[[], object], deadline_s: float = DEADLINE_S) -> None:
    """Return once the condition is true; AssertionError at the deadline."""
    deadline = monotonic() + deadline_s
    while not condition():
        assert monotonic() < deadline, "the condition did not become true in time"
        await asyncio.sleep(0.005)


def open_connections(address: SocketAddress) -> int:
    """How many connections from this process to the address are open at their caller's end."""
    return sum(
        bool(connection.raddr) and connection.raddr.port == address.port
        for connection in psutil.Process().net_connections("tcp4")
    )


@asynccontextmanager
async def listening(talk: Talk) -> AsyncIterator[SocketAddress]:
    """A server that calls `talk` for every connection; at the end, all its connections are closed at both ends."""
    writers: list[asyncio.StreamWriter] = []
    talking: list[None] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        talking.append(None)
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                await talk(reader, writer)
        finally:
            talking.pop()

    server = await asyncio.start_server(accept, LOOPBACK, 0)
    address = SocketAddress(LOOPBACK, server.sockets[0].getsockname()[1])
    try:
        yield address
    finally:
        server.close()
        for writer in writers:
            writer.close()
        await eventually(lambda: not talking and not open_connections(address))
