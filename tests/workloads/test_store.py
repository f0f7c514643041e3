"""Replicas of a store as processes: with disks, connections, crashes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import signal
import socket
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest

from testbed.objects.addresses import SocketAddress
from testbed.objects.cells import PartitionRule
from testbed.objects.workloads import StoreGroup, StoreIsr, StoreMode, StoreReplica, StoreWorkload
from testbed.workloads.store.settings import SETTINGS_VARIABLE, Peer, StoreSettings

LOOPBACK = "127.73.0.1"
"""From where nobody connects: who did so from the port of a replica that is down would keep it."""
WITHIN_S = 60.0


class Refused(Exception):
    """An answer that is not a good one."""


class Cluster:
    """Its replicas find each other without a relay, as on one node."""

    def __init__(self, folder: Path, workload: StoreWorkload) -> None:
        self.folder = folder
        self.names = [each.name for each in workload.replicas]
        with contextlib.ExitStack() as held:
            free = [held.enter_context(socket.create_server((LOOPBACK, 0))) for _ in range(2 * len(self.names))]
            ports = [each.getsockname()[1] for each in free]
        self.clients = dict(zip(self.names, ports, strict=False))
        listen = {
            name: SocketAddress(LOOPBACK, port) for name, port in zip(self.names, ports[len(self.names) :], strict=True)
        }
        self.settings = {
            name: StoreSettings(
                LOOPBACK,
                self.clients[name],
                listen[name],
                tuple(Peer(other, listen[other], None) for other in self.names if other != name),
                folder / name,
                folder / f"{name}.leaders",
                1,
                replace(workload, replica=name),
                "secret",
            )
            for name in self.names
        }
        self.processes: dict[str, asyncio.subprocess.Process] = {}

    async def start(self, name: str, file_bytes_max: int | None = None) -> None:
        def limit() -> None:
            if file_bytes_max is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes_max, file_bytes_max))

        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "testbed.workloads.store"),
                env={**os.environ, SETTINGS_VARIABLE: self.settings[name].to_json()},
                stdout=log,
                stderr=log,
                preexec_fn=limit,
            )

    async def kill(self, name: str) -> None:
        self.processes[name].kill()
        await self.processes[name].wait()

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    async def ask(self, name: str, method: str, key: str, value: str = "", write_id: str = "") -> tuple[str, str]:
        """The value, and who took it. Raises Refused, and OSError where nobody answers."""
        reader, writer = await asyncio.open_connection(LOOPBACK, self.clients[name])
        with contextlib.closing(writer):
            head = f"{method} /{key} HTTP/1.1\r\nhost: data\r\nconnection: close\r\ncontent-length: {len(value)}\r\n"
            identity = f"x-request-id: {write_id}\r\n" if write_id else ""
            writer.write(f"{head}{identity}\r\n{value}".encode())
            answer = (await reader.read()).decode()
        head, _, body = answer.partition("\r\n\r\n")
        if not head.startswith(("HTTP/1.1 200", "HTTP/1.1 204")):
            raise Refused(answer)
        owner = [line.partition(": ")[2] for line in head.split("\r\n") if line.startswith("x-store-owner")]
        return body, owner[0] if owner else ""

    async def answer(self, name: str, method: str, key: str, value: str = "", write_id: str = "") -> str:
        """The value, however often it takes: on a busy machine leaders may change at any time."""
        async with asyncio.timeout(WITHIN_S):
            while True:
                with contextlib.suppress(Refused, ConnectionError):
                    return (await self.ask(name, method, key, value, write_id))[0]
                await asyncio.sleep(0.05)

    async def leader(self, *others: str) -> str:
        """Who takes a write, once somebody does; asked by one of `others`, or of all."""

        async def found() -> str:
            for name in others or self.names:
                with contextlib.suppress(Refused, OSError):
                    return (await self.ask(name, "PUT", "0", "?"))[1].partition("@")[0]
            return ""

        return await until(found)


async def until(check: Callable[[], Awaitable[str]]) -> str:
    async with asyncio.timeout(WITHIN_S):
        while not (found := await check()):
            await asyncio.sleep(0.05)
        return found


@contextlib.asynccontextmanager
async def cluster(
    folder: Path,
    replicas: int = 3,
    cells: Sequence[str] = (),
    started: Sequence[str] = (),
    timeout_s: float = 0.5,
    **settings: Any,
) -> AsyncIterator[Cluster]:
    """Those named in `started`, or all, are started, and there is a leader. The time-out is that of elections."""
    in_cells = zip_longest(range(replicas), cells, fillvalue="")
    homes = tuple(StoreReplica(f"data-r{number + 1}", "n", number, cell) for number, cell in in_cells)
    # Alone, a replica waits for nobody whom a busy machine could hold up.
    if replicas == 1:
        timeout_s = 0.1
    workload = StoreWorkload("", homes, election_timeout_s=timeout_s, heartbeat_s=timeout_s / 10, **settings)
    made = Cluster(folder, workload)
    try:
        for name in started or made.names:
            await made.start(name)
        await made.leader(*started)
        yield made
    finally:
        for process in made.processes.values():
            if process.returncode is None:
                process.kill()
                await process.wait()


def test_every_replica_answers_and_a_crash_of_the_leader_loses_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(tmp_path) as store:
            assert await store.answer("data-r1", "GET", "k") == ""
            for number, name in enumerate(store.names):
                await store.answer(name, "PUT", f"k{number}", f"value {number}")
            for name in store.names:
                assert [await store.answer(name, "GET", f"k{number}") for number in range(3)] == [
                    "value 0",
                    "value 1",
                    "value 2",
                ]
            first = await store.leader()
            await store.kill(first)
            rest = [name for name in store.names if name != first]
            second = await store.leader(*rest)
            assert second in rest
            await store.answer(rest[0], "PUT", "k0", "newer")
            await store.start(first)
            await store.kill(rest[0])
            # Without it nothing is decided, so it has what it missed.
            await store.leader(first, rest[1])
            assert await store.answer(first, "GET", "k0") == "newer"
            assert await store.answer(first, "GET", "k2") == "value 2"

    asyncio.run(scenario())


def test_all_of_it_is_there_after_all_have_crashed_also_behind_snapshots(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(tmp_path, snapshot_entries=20) as store:
            leader = await store.leader()
            behind = next(name for name in store.names if name != leader)
            await store.kill(behind)
            for number in range(90):
                await store.answer(leader, "PUT", f"k{number % 7}", f"value {number}")
            # It needs a snapshot: the entries that it lacks are nowhere any more.
            await store.start(behind)
            await store.leader(behind)
            for name in store.names:
                await store.kill(name)
            for name in store.names:
                assert (tmp_path / name / "group-0" / "journal").stat().st_size < 20_000
                await store.start(name)
            await store.leader()
            assert [await store.answer(behind, "GET", f"k{key}") for key in range(7)] == [
                f"value {number}" for number in (84, 85, 86, 87, 88, 89, 83)
            ]

    asyncio.run(scenario())


def test_without_a_majority_nothing_is_acknowledged_or_read(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(tmp_path) as store:
            leader = await store.leader()
            for name in store.names:
                if name != leader:
                    await store.kill(name)
            for method in ("PUT", "GET"):
                with pytest.raises(Refused, match=r"HTTP/1.1 50[34]"):
                    await store.ask(leader, method, "k", "v")

    asyncio.run(scenario())


def test_a_write_that_comes_again_under_its_id_is_not_done_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(tmp_path, replicas=1) as store:
            await store.answer("data-r1", "PUT", "k", "older", write_id="w1")
            await store.answer("data-r1", "PUT", "k", "newer", write_id="w2")
            await store.answer("data-r1", "PUT", "k", "older", write_id="w1")
            await store.kill("data-r1")
            await store.start("data-r1")
            await store.leader()
            assert await store.answer("data-r1", "GET", "k") == "newer"
            store.processes["data-r1"].send_signal(signal.SIGTERM)
            assert await store.processes["data-r1"].wait() == 0

    asyncio.run(scenario())


def test_the_primaries_lead_while_they_can(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(tmp_path, groups=(StoreGroup(0, 1, ("data-r2",)),)) as store:

            async def leads() -> str:
                return "yes" if await store.leader() == "data-r2" else ""

            await until(leads)
            await store.kill("data-r2")
            assert await store.leader("data-r1") != "data-r2"
            await store.start("data-r2")
            await until(leads)

    asyncio.run(scenario())


def test_a_new_store_is_ready_once_its_primary_leads_and_nothing_moves_any_more(tmp_path: Path) -> None:
    primary, *others = "data-r3", "data-r1", "data-r2"
    groups = (StoreGroup(0, 1, (primary,)),)

    async def scenario() -> None:
        async with cluster(tmp_path, started=others, timeout_s=1.0, groups=groups) as store:
            await store.start(primary)

            async def ready() -> str:
                with contextlib.suppress(Refused, OSError):
                    await store.ask(primary, "GET", "healthz")
                    return "yes"
                return ""

            await until(ready)
            assert (await store.ask(primary, "PUT", "0", "?"))[1].partition("@")[0] == primary

    asyncio.run(scenario())


def test_each_group_has_a_leader_of_its_own_and_one_disk_folder_and_listener_serve_them_all(tmp_path: Path) -> None:
    names = [f"data-r{number}" for number in (1, 2, 3)]
    groups = tuple(StoreGroup(10 * at, 10 * at + 10, tuple(names[at:] + names[:at])) for at in range(3))
    digits = PartitionRule("modulo")
    # Partition 5, 15 and 25: one of each group.
    keys = ["5", "15", "25"]

    async def scenario() -> None:
        async with cluster(tmp_path, groups=groups, rule=digits) as store:

            async def led_by(*expected: str) -> str:
                owners = []
                for key in keys:
                    with contextlib.suppress(Refused, ConnectionError):
                        owners.append((await store.ask("data-r1", "PUT", key, f"v{key}"))[1].partition("@")[0])
                return "yes" if owners == list(expected) else ""

            await until(lambda: led_by(*names))
            with pytest.raises(Refused, match=r"HTTP/1\.1 400"):
                await store.ask("data-r1", "PUT", "no-number", "v")
            # Who is next in the order of the group takes over, and others keep their leaders.
            await store.kill("data-r2")
            await until(lambda: led_by("data-r1", "data-r3", "data-r3"))
            assert [await store.answer("data-r3", "GET", key) for key in keys] == ["v5", "v15", "v25"]
            await store.start("data-r2")
            await until(lambda: led_by(*names))
            assert sorted(path.name for path in (tmp_path / "data-r2").iterdir()) == ["group-0", "group-1", "group-2"]

    asyncio.run(scenario())


def test_a_leader_that_is_asked_for_takes_over_its_group_alone_and_stays_after_restarts(tmp_path: Path) -> None:
    order = ("data-r1", "data-r2", "data-r3")
    groups = (StoreGroup(0, 1, order), StoreGroup(1, 2, order))

    async def scenario() -> None:
        async with cluster(tmp_path, groups=groups, rule=PartitionRule("modulo")) as store:

            async def leaders() -> list[str]:
                return [(await store.ask("data-r3", "PUT", key, "v"))[1].partition("@")[0] for key in ("0", "1")]

            async def are(*expected: str) -> str:
                with contextlib.suppress(Refused, OSError):
                    return "yes" if await leaders() == list(expected) else ""
                return ""

            await until(lambda: are("data-r1", "data-r1"))
            preferred = '["data-r2", "data-r1", "data-r3"]'
            await asyncio.gather(*(store.ask(name, "PATCH", "0", preferred) for name in store.names))
            # 204 says that it leads, as far as that replica knows.
            assert await leaders() == ["data-r2", "data-r1"]
            notes = [json.loads(line) for line in (tmp_path / "data-r1.leaders").read_text().splitlines()]
            assert [each["what"] for each in notes if each["group"] == 0][-2:] == ["yields", "leads no more"]
            for wrong in ("0", "2", "x"):
                body = preferred if wrong != "0" else '["data-r9"]'
                with pytest.raises(Refused, match=r"HTTP/1\.1 400"):
                    await store.ask("data-r1", "PATCH", wrong, body)
            for name in store.names:
                await store.kill(name)
            for name in store.names:
                await store.start(name)
            await until(lambda: are("data-r2", "data-r1"))

    asyncio.run(scenario())


@pytest.mark.parametrize("mode", ["quorum", "isr"])
def test_a_replica_does_not_listen_to_who_lacks_the_secret(tmp_path: Path, mode: StoreMode) -> None:
    async def scenario() -> None:
        isr = {"mode": "isr", "isr": StoreIsr(), "groups": (StoreGroup(0, 1, replicas=("data-r1",)),)}
        async with cluster(tmp_path, replicas=1, **(isr if mode == "isr" else {})) as store:
            listen = store.settings["data-r1"].listen
            reader, writer = await asyncio.open_connection(listen.ip, listen.port)
            with contextlib.closing(writer), contextlib.suppress(ConnectionError):
                writer.write(struct.pack(">I", 6) + b"guess!")
                assert await asyncio.wait_for(reader.read(), WITHIN_S) == b""

    asyncio.run(scenario())


def test_a_replica_whose_disk_is_full_ends_and_comes_back_with_all_that_it_acknowledged(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(tmp_path, replicas=1) as store:
            await store.kill("data-r1")
            await store.start("data-r1", file_bytes_max=20_000)
            await store.leader()
            acknowledged: list[str] = []
            with contextlib.suppress(Refused, OSError):
                while True:
                    value = f"{len(acknowledged)} {'x' * 500}"
                    await store.ask("data-r1", "PUT", f"k{len(acknowledged)}", value)
                    acknowledged.append(value)
            assert await store.processes["data-r1"].wait() == 74
            assert "cannot write to" in store.log("data-r1")
            assert len(acknowledged) > 10
            await store.start("data-r1")
            await store.leader()
            assert "had torn the last record" in store.log("data-r1")
            for number, value in enumerate(acknowledged):
                assert await store.answer("data-r1", "GET", f"k{number}") == value

    asyncio.run(scenario())


def test_a_replica_on_a_damaged_disk_says_so_and_ends(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(tmp_path, replicas=1) as store:
            for number in range(3):
                await store.answer("data-r1", "PUT", "k", f"{number}")
            await store.kill("data-r1")
            journal = tmp_path / "data-r1" / "group-0" / "journal"
            journal.write_bytes(journal.read_bytes().replace(b'"value":"1"', b'"value":"7"'))
            await store.start("data-r1")
            assert await store.processes["data-r1"].wait() == 65
            last = store.log("data-r1").splitlines()[-1]
            assert "the record at byte" in last
            assert "must not start" in last

    asyncio.run(scenario())
