"""Brokers of a store in mode isr as processes: with disks, connections, crashes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from testbed.control.cells.partitions import partition_of
from testbed.objects.workloads import BY_HASH, StoreGroup, StoreIsr
from tests.workloads.test_store import Cluster, Refused, cluster, until


def isr(*replicas: str, **settings: Any) -> dict[str, Any]:
    waits = {"replica_lag_time_max_s": 0.8, "broker_session_timeout_s": 0.8, "leader_imbalance_check_s": 0.5}
    return {"mode": "isr", "groups": (StoreGroup(0, 1, replicas=replicas),), "isr": StoreIsr(**(waits | settings))}


async def in_sync(store: Cluster, *wanted: str) -> None:
    """Once whoever leads has noted these, the leader first."""

    async def noted() -> str:
        notes = [
            (orjson.loads(line), name)
            for name in store.names
            for line in (store.folder / f"{name}.leaders").read_bytes().splitlines()
        ]
        changes = [(note["t_s"], name, sorted(note["isr"])) for note, name in notes if "isr" in note]
        _, name, members = max(changes, default=(0.0, "", []))
        return "yes" if (name, members) == (wanted[0], sorted(wanted)) else ""

    await until(noted)


def test_a_crash_of_any_broker_loses_nothing_and_it_catches_up(tmp_path: Path) -> None:
    async def scenario() -> None:
        names = ("data-r1", "data-r2", "data-r3")
        async with cluster(tmp_path, **isr(*names, min_insync_replicas=2)) as store:
            await in_sync(store, *names)
            for number, name in enumerate(names):
                await store.answer(name, "PUT", f"k{number}", f"value {number}")
            await store.kill("data-r1")
            await in_sync(store, "data-r2", "data-r3")
            await store.answer("data-r3", "PUT", "k0", "newer")
            await store.start("data-r1")
            await in_sync(store, *names)  # the first is given back what it is to lead
            for name in names:
                await store.kill(name)
            for name in names:
                await store.start(name)
            values = [await store.answer(name, "GET", f"k{number}") for number, name in enumerate(names)]
            assert values == ["newer", "value 1", "value 2"]

    asyncio.run(scenario())


@pytest.mark.parametrize("unclean", [True, False])
def test_who_lacks_what_was_acknowledged_leads_only_if_an_election_may_be_unclean(
    tmp_path: Path, unclean: bool
) -> None:
    async def scenario() -> None:
        async with cluster(tmp_path, **isr("data-r1", "data-r2", unclean_leader_election=unclean)) as store:
            await in_sync(store, "data-r1", "data-r2")
            await store.answer("data-r3", "PUT", "k", "first")
            await store.kill("data-r2")
            await in_sync(store, "data-r1")
            await store.answer("data-r3", "PUT", "k", "second")
            await store.kill("data-r1")
            await store.start("data-r2")
            if unclean:
                await in_sync(store, "data-r2")
                assert await store.answer("data-r3", "GET", "k") == "first"
                await store.start("data-r1")
                await in_sync(store, "data-r1", "data-r2")
                assert await store.answer("data-r1", "GET", "k") == "first"
            else:
                await store.start("data-r1")
                assert await store.answer("data-r2", "GET", "k") == "second"

    asyncio.run(scenario())


def test_with_too_few_in_sync_writes_are_refused_and_reads_are_not(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(tmp_path, **isr("data-r1", "data-r2", min_insync_replicas=2)) as store:
            await in_sync(store, "data-r1", "data-r2")
            await store.answer("data-r3", "PUT", "k", "first")
            await store.kill("data-r2")
            await in_sync(store, "data-r1")
            with pytest.raises(Refused, match=r"(?s)503.*NOT_ENOUGH_REPLICAS$"):
                await store.ask("data-r1", "PUT", "k", "second")
            assert await store.answer("data-r3", "GET", "k") == "first"

    asyncio.run(scenario())


def test_writes_of_a_partition_can_be_forbidden_and_then_followers_catch_up(tmp_path: Path) -> None:
    async def scenario() -> None:
        groups = (StoreGroup(0, 2, replicas=("data-r1", "data-r2", "data-r3")),)
        async with cluster(tmp_path, **(isr(acks="1") | {"groups": groups})) as store:
            await in_sync(store, *store.names)
            of_0, of_1 = (next(key for key in "abcdef" if partition_of(BY_HASH, 2, key) == each) for each in (0, 1))
            for number in range(20):
                await store.answer("data-r3", "PUT", of_0, f"value {number}")
            for name in store.names:
                await store.ask(name, "PATCH", "0", "[0]")

            async def all_have_it() -> str:
                lags = (await store.ask("data-r1", "PATCH", "0", "null"))[0]
                return lags if orjson.loads(lags) == {"data-r2": 0, "data-r3": 0} else ""

            await until(all_have_it)
            assert (await store.ask("data-r2", "PATCH", "0", "null"))[0] == "null"
            with pytest.raises(Refused, match=r"(?s)503.*forbidden"):
                await store.ask("data-r3", "PUT", of_0, "late")
            await store.answer("data-r3", "PUT", of_1, "another partition")
            assert await store.answer("data-r3", "GET", of_0) == "value 19"
            await store.ask("data-r1", "PATCH", "0", "[]")
            await store.answer("data-r3", "PUT", of_0, "again")
            with pytest.raises(Refused, match="400"):
                await store.ask("data-r1", "PATCH", "0", "[2]")

    asyncio.run(scenario())
