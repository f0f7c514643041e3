"""Probes against real servers and programs, by Kubernetes' rules of success."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping

import pytest

from testbed.control.objects import Probe, SocketAddress
from testbed.emulation.probes import run_probe
from tests.emulation.loopback import DEADLINE_S, LOOPBACK, Talk, listening

SHORT_S = 0.1
UNUSED = SocketAddress(LOOPBACK, 9)


def replying(reply: bytes, seen: list[bytes] | None = None) -> Talk:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if seen is not None:
            seen.append(head)
        writer.write(reply)
        await reader.read()

    return talk


def probe_server(probe: Probe, talk: Talk) -> tuple[bool, str]:
    async def scenario() -> tuple[bool, str]:
        async with listening(talk) as address:
            return await asyncio.wait_for(run_probe(probe, address, {}), DEADLINE_S)

    return asyncio.run(scenario())


def probe_nobody(probe: Probe) -> tuple[bool, str]:
    with socket.socket() as bound:
        bound.bind((LOOPBACK, 0))  # taken, but it does not listen
        return asyncio.run(run_probe(probe, SocketAddress(*bound.getsockname()), {}))


def execute(*command: str, env: Mapping[str, str] | None = None, timeout_s: float = DEADLINE_S) -> tuple[bool, str]:
    return asyncio.run(run_probe(Probe("exec", command=command, timeout_s=timeout_s), UNUSED, env or {}))


@pytest.mark.parametrize(
    ("status", "succeeds"),
    [(200, True), (204, True), (301, True), (399, True), (400, False), (404, False), (503, False)],
)
def test_an_http_probe_succeeds_from_200_to_399(status: int, succeeds: bool) -> None:
    reply = b"HTTP/1.1 %d Any\r\ncontent-length: 0\r\n\r\n" % status
    assert probe_server(Probe(path="/ready"), replying(reply)) == (succeeds, f"GET /ready: status {status}")


def test_an_http_probe_asks_for_its_path_as_the_kubelet_does() -> None:
    seen: list[bytes] = []
    probe_server(Probe(path="/ready?full=1"), replying(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", seen))
    assert seen[0].startswith(b"GET /ready?full=1 HTTP/1.1\r\n")
    assert b"user-agent: kube-probe" in seen[0].splitlines()


def test_an_http_probe_fails_without_an_answer_in_time() -> None:
    ok, message = probe_server(Probe(timeout_s=SHORT_S), replying(b""))
    assert not ok
    assert "timed out" in message
