"""Connections of a replica to its peers."""

from __future__ import annotations

import asyncio
import socket
import struct

import uvloop

from testbed.network.wire.peers import Peer, Peers
from testbed.objects.addresses import SocketAddress

LOOPBACK = "127.0.0.1"
WITHIN_S = 30.0
RESET_AT_ONCE = struct.pack("ii", 1, 0)
"""SO_LINGER of 0 s."""


def test_a_peer_that_resets_its_connection_at_any_moment_costs_a_message_and_no_more() -> None:
    async def scenario() -> None:
        with socket.create_server((LOOPBACK, 0)) as listening:
            listening.setblocking(False)
            address = SocketAddress(LOOPBACK, listening.getsockname()[1])
            peers = Peers("data-r1", (Peer("data-r2", address, None),), 10.0, lambda *_: None)
            await peers.open(SocketAddress(LOOPBACK, 0))
            loop = asyncio.get_running_loop()
            try:
                async with asyncio.timeout(WITHIN_S):
                    for _ in range(3):
                        connection, _ = await loop.sock_accept(listening)
                        while not peers.send("data-r2", b"x"):
                            await asyncio.sleep(0)
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_ONCE)
                        connection.close()
                        # At every turn of the loop: also between the failure of the connection and its end.
                        while peers.send("data-r2", b"x"):
                            await asyncio.sleep(0)
            finally:
                peers.close()

    uvloop.run(scenario())


def test_who_does_not_show_the_secret_is_not_listened_to() -> None:
    async def scenario() -> None:
        with socket.create_server((LOOPBACK, 0)) as free:
            address = SocketAddress(LOOPBACK, free.getsockname()[1])
        heard: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
        to_other = (Peer("b", SocketAddress(LOOPBACK, 1), None),)
        listening = Peers("a", to_other, 10.0, lambda *message: heard.put_nowait(message), b"secret")
        await listening.open(address)
        senders = [
            Peers("b", (Peer("a", address, None),), 1.0, lambda *_: None, secret)
            for secret in (b"", b"guessed", b"secret")
        ]
        try:
            for sender in senders:
                await sender.open(SocketAddress(LOOPBACK, 0))
            async with asyncio.timeout(WITHIN_S):
                left = [0] * len(senders)
                while min(left) < 3 or heard.qsize() < 3:
                    for number, sender in enumerate(senders):
                        left[number] += sender.send("a", b"%d" % number)
                    await asyncio.sleep(0.01)
            assert {heard.get_nowait() for _ in range(heard.qsize())} == {("b", b"2")}
        finally:
            for peers in (*senders, listening):
                peers.close()

    uvloop.run(scenario())


def test_who_has_started_again_is_connected_to_again_before_there_is_anything_to_say() -> None:
    async def scenario() -> None:
        with socket.create_server((LOOPBACK, 0)) as listening, socket.create_server((LOOPBACK, 0)) as free:
            listening.setblocking(False)
            other = SocketAddress(LOOPBACK, listening.getsockname()[1])
            here = SocketAddress(LOOPBACK, free.getsockname()[1])
            free.close()
            peers = Peers("a", (Peer("b", other, None),), 1000.0, lambda *_: None)
            await peers.open(here)
            loop = asyncio.get_running_loop()
            to_a = (Peer("a", here, None),)
            first, again = (Peers("b", to_a, 1000.0, lambda *_: None) for _ in range(2))
            connections: list[socket.socket] = []
            try:
                async with asyncio.timeout(WITHIN_S):
                    connections.append((await loop.sock_accept(listening))[0])
                    await first.open(SocketAddress(LOOPBACK, 0))
                    while not first.send("a", b"x"):
                        await asyncio.sleep(0.01)
                    first.close()
                    await again.open(SocketAddress(LOOPBACK, 0))
                    connections.append((await loop.sock_accept(listening))[0])
            finally:
                for each in (peers, first, again):
                    each.close()
                for connection in connections:
                    connection.close()

    uvloop.run(scenario())
