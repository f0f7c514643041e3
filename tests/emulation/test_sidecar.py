"""A pilot-agent with an Envoy that is real or played, and no Ray."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from testbed.control.views.envoy.envoy_api import CLUSTER_TYPE, LISTENER_TYPE
from testbed.emulation.actors import sidecar as sidecar_module
from testbed.emulation.actors.reports import MachineFolders
from testbed.emulation.actors.seam import Actor, handle_of
from testbed.emulation.actors.sidecar import Sidecar
from testbed.emulation.processes import envoy, lateness
from tests.emulation.loopback import DEADLINE_S, eventually
from tests.emulation.test_ads import connected

pytestmark = pytest.mark.usefixtures("fork_server")
STARTED_WITHIN_S = 20.0


class Agent:
    def __init__(self) -> None:
        self.reports: list[tuple[str, ...]] = []
        self.ends: list[tuple[int, int, str]] = []

    async def proxy_reported(self, pod: str, what: str, at_s: float, details: tuple[str, ...]) -> None:
        self.reports.append((what, *details))

    async def process_exited(self, pod: str, process: str, life: int, code: int, last_words: str) -> None:
        self.ends.append((life, code, last_words))


async def test_a_proxy_that_was_stopped_and_is_started_again_gets_its_configuration(tmp_path: Path) -> None:
    agent = Agent()
    sidecar = Sidecar(handle_of(agent), MachineFolders(tmp_path, tmp_path, "testbed-none"), "web-1")
    for life in (1, 2):
        agent.reports.clear()
        await sidecar.start(life)
        await eventually(lambda: ("connected",) in agent.reports, STARTED_WITHIN_S)
        await sidecar.publish(CLUSTER_TYPE, f"v{life}", ())
        acked = ("acked", CLUSTER_TYPE, f"v{life}")
        await eventually(lambda acked=acked: acked in agent.reports, STARTED_WITHIN_S)
        await sidecar.stop()
        await eventually(lambda life=life: [end[0] for end in agent.ends][-1:] == [life])


class Admin:
    """Envoy's admin interface, which says what it is told to say."""

    def __init__(self) -> None:
        self.state = "PRE_INITIALIZING"
        self.asked = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 200 OK\r\ncontent-length: {len(self.state)}\r\n\r\n{self.state}".encode())
        writer.close()


@asynccontextmanager
async def supervising(
    folder: Path, monkeypatch: pytest.MonkeyPatch, program: str = "exec sleep 60"
) -> AsyncIterator[tuple[Sidecar, Agent]]:
    """A pilot-agent whose Envoy is a shell script; who plays the proxy connects as `Proxy`."""
    agent = Agent()
    sidecar = Sidecar(handle_of(agent), MachineFolders(folder, folder, "testbed-none"), "web-1")
    monkeypatch.setattr(envoy, "arguments", lambda _: ["/bin/sh", "-c", program])
    try:
        yield sidecar, agent
    finally:
        await sidecar.kill()
        await sidecar.stop()


async def test_a_proxy_is_ready_when_it_has_its_listeners_and_says_that_it_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = Admin()
    server = await asyncio.start_unix_server(admin.answer, tmp_path / "web-1.admin")
    async with supervising(tmp_path, monkeypatch) as (sidecar, agent), server:
        await sidecar.start(1)
        async with connected(tmp_path / "web-1.ads") as proxy:
            await proxy.ask(LISTENER_TYPE)
            await sidecar.publish(LISTENER_TYPE, "v1", ())
            told = await proxy.told()
            assert admin.asked == 0
            await proxy.ack(told)
            await eventually(lambda: admin.asked > 1)
            assert ("ready",) not in agent.reports
            admin.state = "LIVE"
            await eventually(lambda: ("ready",) in agent.reports)
            assert agent.reports == [("connected",), ("acked", LISTENER_TYPE, "v1"), ("ready",)]


async def test_what_a_proxy_refuses_is_told_in_its_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with supervising(tmp_path, monkeypatch) as (sidecar, agent):
        await sidecar.start(1)
        async with connected(tmp_path / "web-1.ads") as proxy:
            await proxy.ask(CLUSTER_TYPE)
            await sidecar.publish(CLUSTER_TYPE, "v1", ())
            told = await proxy.told()
            await proxy.ask(CLUSTER_TYPE, nonce=told.nonce, error="no such filter")
            await eventually(lambda: ("rejected", CLUSTER_TYPE, "v1", "no such filter") in agent.reports)


async def test_the_end_of_a_proxy_is_told_with_its_life_and_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with supervising(tmp_path, monkeypatch, "echo 'no such listener' >&2; exit 7") as (sidecar, agent):
        await sidecar.start(3)
        await eventually(lambda: agent.ends == [(3, 7, "no such listener")])


async def test_a_proxy_that_does_not_end_when_it_is_asked_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sidecar_module, "STOP_GRACE_S", 0.1)
    deaf = f"trap '' TERM; touch {tmp_path / 'deaf'}; while :; do sleep 60; done"
    async with supervising(tmp_path, monkeypatch, deaf) as (sidecar, agent):
        await sidecar.start(1)
        await eventually((tmp_path / "deaf").exists)
        await asyncio.wait_for(sidecar.stop(), DEADLINE_S)
        await eventually(lambda: [code for _, code, _ in agent.ends] == [-signal.SIGKILL])


async def test_a_proxy_that_cannot_be_started_is_an_error_of_who_wanted_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with supervising(tmp_path, monkeypatch) as (sidecar, agent):
        monkeypatch.setattr(envoy, "arguments", lambda _: ["/no/such/envoy"])
        with pytest.raises(FileNotFoundError):
            await sidecar.start(1)
        assert agent.ends == []


class Elsewhere:
    """The handle of an agent in another process."""

    def __init__(self, agent: Agent) -> None:
        self._handle = handle_of(agent)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handle, name)


async def test_a_sidecar_with_a_process_of_its_own_tells_that_it_was_held_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lateness, "PERIOD_S", 0.02)
    async with supervising(tmp_path, monkeypatch) as (beside_its_agent, agent):
        sidecar = Sidecar(cast(Actor, Elsewhere(agent)), MachineFolders(tmp_path, tmp_path, "testbed-none"), "web-2")
        for each in (beside_its_agent, sidecar):
            await each.start(1)
        time.sleep(5 * lateness.NOTED_S)
        await eventually(lambda: "late" in [report[0] for report in agent.reports])
        await sidecar.kill()
        await sidecar.stop()
        sidecar._loop_watch.stop()
        assert beside_its_agent._loop_watch._timer is None, "its agent watches the loop that they share"
