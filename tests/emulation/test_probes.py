"""Probes against real servers and programs, by Kubernetes' rules of success."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from testbed.emulation.processes.probes import run_probe
from testbed.objects.addresses import SocketAddress
from testbed.objects.workloads import Probe
from tests.emulation.loopback import DEADLINE_S, LOOPBACK, Talk, eventually, listening

SHORT_S = 0.1
PATIENT = Probe(timeout_s=DEADLINE_S)
"""What it finds is no matter of time."""
UNUSED = SocketAddress(LOOPBACK, 9)
NO_FORK_SERVER = Path("/none")


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
            return await asyncio.wait_for(run_probe(probe, address, {}, NO_FORK_SERVER), 2 * DEADLINE_S)

    return asyncio.run(scenario())


def probe_nobody(probe: Probe) -> tuple[bool, str]:
    with socket.socket() as bound:
        bound.bind((LOOPBACK, 0))  # taken, but it does not listen
        return asyncio.run(run_probe(probe, SocketAddress(*bound.getsockname()), {}, NO_FORK_SERVER))


def execute(
    server: Path, *command: str, env: Mapping[str, str] | None = None, timeout_s: float = DEADLINE_S
) -> tuple[bool, str]:
    return asyncio.run(run_probe(Probe("exec", command=command, timeout_s=timeout_s), UNUSED, env or {}, server))


@pytest.mark.parametrize(
    ("status", "succeeds"),
    [(200, True), (204, True), (301, True), (399, True), (400, False), (404, False), (503, False)],
)
def test_an_http_probe_succeeds_from_200_to_399(status: int, succeeds: bool) -> None:
    reply = b"HTTP/1.1 %d Any\r\ncontent-length: 0\r\n\r\n" % status
    assert probe_server(replace(PATIENT, path="/ready"), replying(reply)) == (succeeds, f"GET /ready: status {status}")


def test_an_http_probe_asks_for_its_path_as_the_kubelet_does() -> None:
    seen: list[bytes] = []
    probe_server(
        replace(PATIENT, path="/ready?full=1"), replying(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", seen)
    )
    assert seen[0].startswith(b"GET /ready?full=1 HTTP/1.1\r\n")
    assert b"user-agent: kube-probe" in seen[0].splitlines()


def test_an_http_probe_fails_without_an_answer_in_time() -> None:
    ok, message = probe_server(Probe(timeout_s=SHORT_S), replying(b""))
    assert not ok
    assert "timed out" in message


def test_an_http_probe_fails_when_the_answer_stops_half_way() -> None:
    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf of")
        writer.close()

    ok, message = probe_server(PATIENT, half)
    assert not ok
    assert "ended before the answer did" in message


def test_an_http_probe_reads_no_more_than_the_kubelet_does() -> None:
    endless = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n" + bytes(20_000)
    assert probe_server(PATIENT, replying(endless)) == (True, "GET /: status 200")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ],
)
def test_an_http_probe_understands_every_kind_of_body(answer: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    assert probe_server(PATIENT, talk) == (True, "GET /: status 200")


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH_9.2\r\n", b"\x16\x03\x01 no http", b""])
def test_an_http_probe_fails_on_what_is_no_http(answer: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    ok, message = probe_server(PATIENT, talk)
    assert not ok
    assert message.startswith("httpGet 127.0.0.1:")


def redirecting(*locations: str) -> Talk:
    """Leads from one location to the next, and answers 503 at the last."""
    following = iter(locations)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        location = next(following, None)
        if location is None:
            writer.write(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n")
        else:
            writer.write(f"HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n".encode())
        await reader.read()

    return talk


@pytest.mark.parametrize(
    ("locations", "result"),
    [
        (["/other", "deeper?x=1"], (False, "GET /: status 503")),  # followed within the host
        (["http://127.9.9.9:1/"], (True, "GET /: status 302")),  # not to another one, which counts as success
        (["https://127.0.0.1/"], (True, "GET /: status 302")),
    ],
)
def test_an_http_probe_follows_redirects_within_its_host(locations: list[str], result: tuple[bool, str]) -> None:
    assert probe_server(PATIENT, redirecting(*locations)) == result


@pytest.mark.parametrize(
    ("locations", "words"), [(["/again"] * 10, "stopped after 10 redirects"), (["//127.0.0.1:99999/"], "redirected to")]
)
def test_redirects_that_lead_nowhere_fail_an_http_probe(locations: list[str], words: str) -> None:
    ok, message = probe_server(PATIENT, redirecting(*locations))
    assert not ok
    assert words in message


def test_a_tcp_probe_succeeds_where_a_connection_opens() -> None:
    probe = replace(PATIENT, kind="tcpSocket")
    with socket.create_server((LOOPBACK, 0)) as server:
        address = SocketAddress(*server.getsockname())
        assert asyncio.run(run_probe(probe, address, {}, NO_FORK_SERVER)) == (True, "connected")
    ok, message = probe_nobody(probe)
    assert not ok
    assert "tcpSocket 127.0.0.1:" in message


def test_an_http_probe_fails_where_nobody_listens() -> None:
    ok, message = probe_nobody(PATIENT)
    assert not ok
    assert "httpGet 127.0.0.1:" in message


@pytest.mark.parametrize(("code", "ok"), [(0, True), (3, False)])
def test_an_exec_probe_succeeds_on_exit_code_0(fork_server: Path, code: int, ok: bool) -> None:
    assert execute(fork_server, "/bin/sh", "-c", f"exit {code}") == (ok, f"exit code {code}")


def test_an_exec_probe_has_the_environment_that_it_is_given_and_no_other(fork_server: Path) -> None:
    assert execute(fork_server, "/bin/sh", "-c", 'test "$PORT" = 8080 && test -z "$HOME"', env={"PORT": "8080"})[0]


def test_an_exec_probe_without_its_program_fails(fork_server: Path) -> None:
    ok, message = execute(fork_server, "/no/such/program")
    assert not ok
    assert "No such file" in message


def test_an_exec_probe_is_killed_with_all_that_it_started_when_its_time_is_over(
    fork_server: Path, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    ok, message = execute(fork_server, "/bin/sh", "-c", f"sleep 600 & echo $$ $! > {pids}; wait", timeout_s=1.5)
    assert not ok
    assert "timed out after 1.5 s" in message
    started = [int(pid) for pid in pids.read_text().split()]
    assert len(started) == 2
    asyncio.run(eventually(lambda: not any(map(runs, started))))


def runs(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


async def test_many_hung_pods_take_no_thread_and_do_not_disturb_the_probes_of_others() -> None:
    with contextlib.ExitStack() as hung:
        addresses = []
        for _ in range(64):
            server = hung.enter_context(socket.create_server((LOOPBACK, 0)))  # accepts in the kernel, says nothing
            addresses.append(SocketAddress(*server.getsockname()))
        waiting = [
            asyncio.create_task(run_probe(Probe(timeout_s=600), address, {}, NO_FORK_SERVER)) for address in addresses
        ]
        async with listening(replying(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")) as healthy:
            before = threading.active_count()
            results = [await run_probe(Probe(timeout_s=DEADLINE_S), healthy, {}, NO_FORK_SERVER) for _ in range(80)]
        assert results == [(True, "GET /: status 200")] * 80
        assert threading.active_count() <= before
        assert not any(task.done() for task in waiting)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
