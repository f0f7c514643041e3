"""Replicas of a store in mode async as processes: told who leads, one by one."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import orjson
import pytest

from testbed.control.cells.store_orders import Forbid, Lead
from testbed.objects.workloads import StoreGroup
from tests.workloads.test_store import Cluster, Refused, cluster, until

OLD, NEW = "data-r1", "data-r2"
GROUPS = (StoreGroup(0, 1, primaries=(OLD, NEW, "data-r3")),)


async def lags(store: Cluster, name: str) -> object:
    return orjson.loads((await store.ask(name, "PATCH", "0", "null"))[0])


async def lead(store: Cluster, name: str, leader: str, epoch: int) -> None:
    await store.ask(name, "PATCH", "0", orjson.dumps(Lead(0, leader, epoch).body).decode())


async def forbid(store: Cluster, name: str, *partitions: int) -> None:
    await store.ask(name, "PATCH", "0", orjson.dumps(Forbid(0, partitions).body).decode())


async def taken_by(store: Cluster, asked: str, value: str) -> str:
    """Who took the write, once somebody has: on a busy machine, answers may be late."""

    async def taken() -> str:
        with contextlib.suppress(Refused, ConnectionError):
            return (await store.ask(asked, "PUT", "k", value))[1]
        return ""

    return await until(taken)


async def refusal(store: Cluster, asked: str, why: str) -> str:
    """The answer to a write that is refused, once it says that."""

    async def refused() -> str:
        try:
            await store.ask(asked, "PUT", "k", "refused")
        except Refused as answer:
            return str(answer) if why in str(answer) else ""
        raise AssertionError("it was taken")

    return await until(refused)


async def everybody_has_all_of(store: Cluster, leader: str) -> None:
    async def caught_up() -> str:
        found = await lags(store, leader)
        return "yes" if isinstance(found, dict) and set(found.values()) == {0} else ""

    await until(caught_up)


def test_leadership_goes_with_orders_also_over_a_restart_and_who_was_replaced_names_its_successor(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with cluster(tmp_path, cells=("rz01", "rz02", "rz03"), mode="async", groups=GROUPS) as store:
            assert await store.leader() == OLD
            await store.answer("data-r3", "PUT", "k", "first")
            await everybody_has_all_of(store, OLD)
            for name in (NEW, OLD, "data-r3"):
                await lead(store, name, NEW, 2)
            await everybody_has_all_of(store, NEW)
            assert await store.answer("data-r3", "GET", "k") == "first"
            assert await taken_by(store, OLD, "second") == f"{NEW}@2"
            assert await lags(store, OLD) is None
            await store.kill(NEW)
            await store.start(NEW)
            assert await store.answer(NEW, "GET", "k") == "second"
            await lead(store, NEW, OLD, 3)
            answer = await refusal(store, "data-r3", f"are led by {OLD}")
            assert answer.startswith("HTTP/1.1 503")
            assert answer.endswith(f"partitions 0 are led by {OLD} in cell rz01; this is {NEW} in cell rz02")
            with pytest.raises(Refused, match="400"):
                await lead(store, OLD, "data-r9", 4)

    asyncio.run(scenario())


def test_two_that_were_told_otherwise_both_take_writes_and_one_of_them_loses_its_own(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(tmp_path, mode="async", groups=GROUPS) as store:
            await store.answer(OLD, "PUT", "k", "first")
            await everybody_has_all_of(store, OLD)
            await lead(store, NEW, NEW, 2)
            assert [await taken_by(store, name, f"by {name}") for name in (NEW, OLD)] == [f"{NEW}@2", f"{OLD}@1"]
            assert [await store.answer(name, "GET", "k") for name in (OLD, NEW)] == [f"by {OLD}", f"by {NEW}"]
            for name in (OLD, "data-r3"):
                await lead(store, name, NEW, 2)
            await everybody_has_all_of(store, NEW)
            assert await store.answer(OLD, "GET", "k") == f"by {NEW}"

    asyncio.run(scenario())


def test_a_replica_that_was_told_to_take_no_writes_takes_none_after_a_restart_until_it_is_told_to(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with cluster(tmp_path, mode="async", groups=GROUPS) as store:
            await store.answer(OLD, "PUT", "k", "first")
            await forbid(store, OLD, 0)
            await refusal(store, OLD, "forbidden")
            await store.kill(OLD)
            await store.start(OLD)
            assert await store.answer(OLD, "GET", "k") == "first"
            await refusal(store, OLD, "forbidden")
            await forbid(store, OLD)
            assert await taken_by(store, OLD, "second") == f"{OLD}@1"
            await store.kill(OLD)
            await store.start(OLD)
            assert await taken_by(store, OLD, "third") == f"{OLD}@1"

    asyncio.run(scenario())
