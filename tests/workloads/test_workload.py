"""The built-in workload: how long it works, whom it calls in which order, and what it answers."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.network.wire.timer import PreciseTimer
from testbed.objects.addresses import SocketAddress
from testbed.objects.workloads import CRASHED, BuiltinWorkload, WorkTime
from testbed.workloads.builtin import Workload, draw_work_s
from testbed.workloads.calls import MeshCalls
from testbed.workloads.http1 import Request, Response
from testbed.workloads.settings import SETTINGS_VARIABLE, WorkloadSettings, service_variables
from tests.emulation.loopback import DEADLINE_S, LOOPBACK, listening

CALL = Request(b"/", {b"host": b"cart", b"x-request-id": b"7", b"cookie": b"secret"})

Upstream = Callable[[str], Awaitable[int]]


async def answers(
    workload: BuiltinWorkload, upstream: Upstream, requests: list[Request], heads: list[bytes] | None = None
) -> list[Response]:
    """What the workload answers when `upstream(service)` gives the status of every call through its proxy."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if heads is not None:
                heads.append(head)
            status = await upstream(head.split()[1].decode().removeprefix("http://").removesuffix("/"))
            writer.write(b"HTTP/1.1 %d Any\r\ncontent-length: 0\r\n\r\n" % status)

    async with listening(talk) as proxy:
        settings = WorkloadSettings(LOOPBACK, 0, proxy, workload, seed=7)
        with PreciseTimer(asyncio.get_running_loop()) as timer:
            served = Workload(settings, MeshCalls(proxy), timer)
            return [await served.answer(request) for request in requests]


async def well(service: str) -> int:
    return 200


def run(test: Coroutine[Any, Any, list[Response]]) -> list[Response]:
    return asyncio.run(asyncio.wait_for(test, DEADLINE_S))


# --- working time --------------------------------------------------------------------------------------------------

seconds = st.floats(1e-6, 1e3)


@given(
    st.builds(
        WorkTime,
        distribution=st.sampled_from(["constant", "uniform", "exponential", "lognormal"]),
        mean_s=st.just(0.0) | seconds,
        spread_s=st.just(0.0) | seconds,
    ),
    st.integers(0, 2**32),
)
def test_working_times_are_never_negative(work: WorkTime, seed: int) -> None:
    random = Random(seed)
    assert all(draw_work_s(work, random) >= 0 for _ in range(10))


@pytest.mark.parametrize(
    "work",
    [
        WorkTime("constant", 0.02),
        WorkTime("uniform", 0.02, 0.02),
        WorkTime("exponential", 0.02),
        WorkTime("lognormal", 0.02, 0.01),
        WorkTime("lognormal", 0.02, 0.0),
    ],
    ids=lambda work: f"{work.distribution}-{work.spread_s}",
)
def test_working_times_have_the_declared_mean(work: WorkTime) -> None:
    random = Random(1)
    times = [draw_work_s(work, random) for _ in range(20_000)]
    assert sum(times) / len(times) == pytest.approx(work.mean_s, rel=0.03)


@pytest.mark.parametrize("distribution", ["uniform", "lognormal"])
def test_working_times_have_the_declared_spread(distribution: Any) -> None:
    random = Random(1)
    times = [draw_work_s(WorkTime(distribution, 0.02, 0.01), random) for _ in range(20_000)]
    if distribution == "uniform":
        assert min(times) == pytest.approx(0.01, rel=0.01)
        assert max(times) == pytest.approx(0.03, rel=0.01)
    else:
        deviation = (sum((time - 0.02) ** 2 for time in times) / len(times)) ** 0.5
        assert deviation == pytest.approx(0.01, rel=0.05)


@pytest.mark.parametrize("distribution", ["constant", "uniform", "exponential", "lognormal"])
def test_no_declared_work_takes_no_time(distribution: Any) -> None:
    assert draw_work_s(WorkTime(distribution), Random(1)) == 0.0


# --- answers -------------------------------------------------------------------------------------------------------


def test_a_workload_that_calls_nobody_answers_with_the_declared_size() -> None:
    workload = BuiltinWorkload(WorkTime("constant", 0.001), response_bytes=1000)
    (response,) = run(answers(workload, well, [CALL]))
    assert (response.status, len(response.body)) == (200, 1000)


def test_health_is_answered_without_work_calls_or_errors() -> None:
    called: list[str] = []

    async def upstream(service: str) -> int:
        called.append(service)
        return 200

    workload = BuiltinWorkload(WorkTime("constant", 1000.0), (("a",),), response_bytes=5, error_rate=1.0)
    assert run(answers(workload, upstream, [Request(b"/healthz")])) == [Response(200)]
    assert called == []


def test_stages_are_called_one_after_the_other() -> None:
    log: list[str] = []

    async def upstream(service: str) -> int:
        log.append(f"{service} begins")
        for _ in range(5):
            await asyncio.sleep(0)
        log.append(f"{service} ends")
        return 200

    (response,) = run(answers(BuiltinWorkload(stages=(("c",), ("a",), ("b",))), upstream, [CALL]))
    assert response.status == 200
    assert log == ["c begins", "c ends", "a begins", "a ends", "b begins", "b ends"]


def test_services_of_one_stage_are_called_at_the_same_time_and_all_waited_for() -> None:
    log: list[str] = []

    async def scenario() -> list[Response]:
        here = {"a": asyncio.Event(), "b": asyncio.Event()}

        async def upstream(service: str) -> int:
            if service in here:
                here[service].set()
                for event in here.values():
                    await event.wait()
            log.append(service)
            return 200

        return await answers(BuiltinWorkload(stages=(("a", "b"), ("c",))), upstream, [CALL])

    assert [response.status for response in run(scenario())] == [200]
    assert (sorted(log[:2]), log[2:]) == (["a", "b"], ["c"])


def test_the_request_id_is_passed_on_and_nothing_else() -> None:
    heads: list[bytes] = []
    run(answers(BuiltinWorkload(stages=(("a",),)), well, [CALL, Request(b"/")], heads))
    assert heads == [
        b"GET http://a/ HTTP/1.1\r\nhost: a\r\nx-request-id: 7\r\n\r\n",
        b"GET http://a/ HTTP/1.1\r\nhost: a\r\n\r\n",
    ]


@pytest.mark.parametrize(
    ("called", "answered"), [(200, 200), (302, 200), (400, 500), (404, 500), (500, 500), (503, 500), (504, 504)]
)
@pytest.mark.parametrize("stage", [("a",), ("a", "b")], ids=["alone", "parallel"])
def test_a_timeout_is_passed_on_as_such_and_any_other_failure_as_500(
    stage: tuple[str, ...], called: int, answered: int
) -> None:
    async def upstream(service: str) -> int:
        return called if service == "a" else 200

    (response,) = run(answers(BuiltinWorkload(stages=(stage,)), upstream, [CALL]))
    assert response.status == answered
    assert response.body.startswith(b"call to a failed" if answered != 200 else b"")


def test_nothing_is_called_after_a_stage_that_failed() -> None:
    called: list[str] = []

    async def upstream(service: str) -> int:
        called.append(service)
        return 503

    run(answers(BuiltinWorkload(stages=(("a",), ("b",))), upstream, [CALL]))
    assert called == ["a"]


def test_a_proxy_that_cannot_be_reached_is_a_500() -> None:
    async def scenario() -> list[Response]:
        async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            raise AssertionError("nobody listens here any more")

        async with listening(never) as gone:
            pass
        settings = WorkloadSettings(
            LOOPBACK, 0, SocketAddress(gone.ip, gone.port), BuiltinWorkload(stages=(("a",),)), 7
        )
        with PreciseTimer(asyncio.get_running_loop()) as timer:
            return [await Workload(settings, MeshCalls(gone), timer).answer(CALL)]

    (response,) = run(scenario())
    assert response.status == 500


def test_the_declared_share_of_requests_fails_before_anything_is_called() -> None:
    called: list[str] = []

    async def upstream(service: str) -> int:
        called.append(service)
        return 200

    responses = run(answers(BuiltinWorkload(stages=(("a",),), error_rate=0.3), upstream, [CALL] * 500))
    failed = sum(response.status == 500 for response in responses)
    assert failed == pytest.approx(150, rel=0.2)
    assert len(called) == 500 - failed


def test_the_same_seed_fails_the_same_requests() -> None:
    workload = BuiltinWorkload(error_rate=0.5)
    assert run(answers(workload, well, [CALL] * 50)) == run(answers(workload, well, [CALL] * 50))


# --- its process ---------------------------------------------------------------------------------------------------


def test_a_workload_that_is_asked_to_end_logs_the_calls_that_nobody_answered(tmp_path: Path) -> None:
    async def scenario() -> None:
        called = asyncio.Event()

        async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            called.set()
            await reader.read(-1)

        async with listening(hang) as stock:
            log = tmp_path / "calls.jsonl"
            with socket.create_server((LOOPBACK, 0)) as free:
                port = free.getsockname()[1]
            settings = WorkloadSettings(LOOPBACK, port, None, BuiltinWorkload(stages=(("stock",),)), 7, str(log))
            host, number = service_variables("stock")
            env = {"POD_NAME": "web-1", host: stock.ip, number: str(stock.port), SETTINGS_VARIABLE: settings.to_json()}
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "testbed.workloads.builtin"), env={**os.environ, **env}
            )
            reader, writer = await connected(port)
            writer.write(b"GET / HTTP/1.1\r\nhost: web\r\nx-request-id: r7\r\n\r\n")
            await called.wait()
            process.terminate()
            assert await process.wait() == 0
            assert await reader.read() == b""
            writer.close()
            lines = [orjson.loads(line) for line in log.read_bytes().splitlines()]
            assert [(line["kind"], line["request_id"], line["flags"], line["upstream_cluster"]) for line in lines] == [
                (kind, "r7", "DC", "stock") for kind in ("outbound", "attempt")
            ]

    asyncio.run(asyncio.wait_for(scenario(), 30.0))


async def connected(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    while True:
        try:
            return await asyncio.open_connection(LOOPBACK, port)
        except ConnectionRefusedError:
            await asyncio.sleep(0.02)


def test_a_request_that_is_declared_to_crash_a_workload_ends_it_unanswered_and_no_other_does() -> None:
    async def scenario() -> None:
        with socket.create_server((LOOPBACK, 0)) as free:
            port = free.getsockname()[1]
        proxy = SocketAddress(LOOPBACK, port)
        settings = WorkloadSettings(LOOPBACK, port, proxy, BuiltinWorkload(crash_path="/poison"), 7)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "testbed.workloads.builtin"),
            env={**os.environ, SETTINGS_VARIABLE: settings.to_json()},
        )
        reader, writer = await connected(port)
        writer.write(b"GET /poisonous HTTP/1.1\r\nhost: web\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        writer.write(b"GET /poison?now HTTP/1.1\r\nhost: web\r\n\r\n")
        assert await reader.read() == b""
        assert await process.wait() == CRASHED
        writer.close()

    asyncio.run(asyncio.wait_for(scenario(), 30.0))
