"""Partitions move to another cell while users work: who is forwarded, who is not, and by which map."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from testbed.control.views.envoy.access_log import CROSS_CELL, OWN, OWNER, STALE_COOKIE, STALE_MAP
from tests.emulation.conftest import FinishedRun

pytestmark = pytest.mark.live

MOVED = set(map(str, range(10)))
CHOSEN_BY_THE_MAP = (OWN, OWNER, CROSS_CELL, STALE_COOKIE, STALE_MAP)


@pytest.fixture(scope="module")
def moving(testbed_run: Callable[..., FinishedRun]) -> FinishedRun:
    run = testbed_run("moving.yaml")
    assert run.summary, run.stderr
    return run


def test_gateways_have_the_new_map_before_sidecars_are_told(moving: FinishedRun) -> None:
    (operation,) = moving.summary["faults"]
    (step,) = operation["steps"]
    assert (operation["name"], step["version"], step["partitions"], step["missing"]) == ("move-ten", 2, "0-9", [])
    delivered_s = step["delivered_s"]
    assert step["applied_s"] < delivered_s["gateways"] < delivered_s["sidecars"]
    pushes = [row for row in moving.rows("pushes") if row["type"].endswith("RouteConfiguration")]
    told = {
        gateway: [
            row["sent_s"] for row in pushes if gateway is row["proxy"].startswith("gateway-") and row["sent_s"] > 0
        ]
        for gateway in (True, False)
    }
    assert max(told[True]) < min(told[False])


def test_every_call_goes_by_one_version_of_the_map(moving: FinishedRun) -> None:
    chosen = [hop for hop in moving.rows("hops") if hop["route"] in CHOSEN_BY_THE_MAP]
    assert {hop["map_version"] for hop in chosen} == {1, 2}
    for hop in chosen:
        partition, version = int(hop["partition"]), hop["map_version"]
        owner = "rz01" if partition < 50 and not (version == 2 and partition < 10) else "rz02"
        assert hop["owner_cell"] == owner, hop


def test_partitions_change_hands_between_the_last_call_of_their_old_owner_and_the_first_of_the_new_one(
    moving: FinishedRun,
) -> None:
    (operation,) = moving.summary["faults"]
    (step,), (handover,) = operation["steps"], operation["handovers"]
    served = [
        hop
        for hop in moving.rows("hops")
        if hop["direction"] == "inbound" and hop["route"] == OWN and hop["partition"] in MOVED
    ]
    old = [hop["start_s"] + hop["duration_ms"] / 1e3 for hop in served if hop["destination_cell"] == "rz01"]
    new = [hop["start_s"] for hop in served if hop["destination_cell"] == "rz02"]
    assert min(new) > step["applied_s"]
    assert (handover["old_until_s"], handover["new_from_s"]) == (max(old), min(new))
    assert (handover["partitions"], handover["between_s"]) == (10, min(new) - max(old))


def test_only_users_who_have_moved_are_forwarded_by_their_cookie_or_an_old_map(moving: FinishedRun) -> None:
    forwarded = [hop for hop in moving.rows("hops") if hop["route"] in (STALE_COOKIE, STALE_MAP)]
    assert {hop["partition"] for hop in forwarded} <= MOVED
    assert moving.summary["ledger"]["by_phase"]["all"]["by_right"].get("leak") is None


def test_users_of_other_partitions_do_not_fail(moving: FinishedRun) -> None:
    others = [row for row in moving.rows("requests") if row["partition"] not in MOVED]
    assert len(others) > 300
    assert {row["outcome"] for row in others} == {"ok"}
