"""Asynchronous data moves to another cell while clients write: what is blocked, for how long, and what is kept."""

from __future__ import annotations

from collections.abc import Callable

import orjson
import pytest

from tests.emulation.conftest import FinishedRun

pytestmark = pytest.mark.live

MOVED = set(map(str, range(25)))


@pytest.fixture(scope="module")
def switching(testbed_run: Callable[..., FinishedRun]) -> FinishedRun:
    run = testbed_run("unit-switch.yaml")
    assert run.summary, run.stderr
    return run


def test_the_phases_of_the_switch_come_one_after_the_other(switching: FinishedRun) -> None:
    (operation,) = switching.summary["faults"]
    (step,) = operation["steps"]
    held, delivered_s = step["held"], step["delivered_s"]
    times_s = [held["began_s"], held["forbidden_s"], step["applied_s"], delivered_s["gateways"], held["caught_up_s"]]
    times_s += [delivered_s["sidecars"], held["lifted_s"]]
    assert times_s == sorted(times_s)
    assert (held["missing"], step["missing"]) == ([], [])


def test_writes_of_what_moves_alone_are_refused_from_the_forbid_to_the_lift(switching: FinishedRun) -> None:
    (operation,) = switching.summary["faults"]
    held = operation["steps"][0]["held"]
    writes = [row for row in switching.rows("operations") if row["operation"] == "write"]
    refused = [row for row in writes if row["outcome"] != "ok"]
    assert refused
    assert {row["partition"] for row in refused} <= MOVED
    for row in refused:
        assert held["began_s"] < row["returned_s"]
        assert row["invoked_s"] < held["lifted_s"]
    (blocked,) = switching.summary["blocked"].values()
    assert (blocked["moved_refused"], blocked["others_refused"]) == (len(refused), 0)
    (((partitions, blocked_s),)) = blocked["blocked"]
    assert partitions == "0-24"
    assert 0 < blocked_s < held["lifted_s"] - held["began_s"] + 0.001


def test_the_new_owner_takes_writes_and_nothing_is_lost_stale_or_written_by_two(switching: FinishedRun) -> None:
    writes = [row for row in switching.rows("operations") if row["operation"] == "write" and row["outcome"] == "ok"]
    owners = [row["owner"] for row in sorted(writes, key=lambda row: row["invoked_s"]) if row["partition"] in MOVED]
    assert owners == sorted(owners)
    assert set(owners) == {"data-r1@1", "data-r2@2"}
    assert set(switching.summary["history"]["found"].values()) == {0}


def test_leaders_and_what_they_were_told_are_events(switching: FinishedRun) -> None:
    rows = [row for row in switching.rows("events") if row["kind"] == "Leader" and row["t_s"] > 0]
    told = {(row["reason"], row["source"], orjson.loads(row["details"])["term"]) for row in rows}
    assert told == {
        ("WritesForbidden", "data-r1-1", 1),
        ("LeaderElected", "data-r2-1", 2),
        ("LeaderLost", "data-r1-1", 1),
        ("WritesAllowed", "data-r2-1", 2),
    }
