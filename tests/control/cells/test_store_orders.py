"""What replicas of an asynchronous store are told, and what their answers mean."""

from __future__ import annotations

import pytest

from testbed.control.cells.operations import Change
from testbed.control.cells.ownership import Move
from testbed.control.cells.phases import BACK, phases
from testbed.control.cells.promotion import ShardedStore
from testbed.control.cells.store_orders import Forbid, Lead, StoreAnswer, forbids, lacks, leads
from testbed.objects.workloads import StoreGroup

REPLICAS = (("data-r1", "rz01"), ("data-r2", "rz02"), ("data-r3", "rz03"))
STORE = ShardedStore("data", (StoreGroup(0, 2), StoreGroup(2, 4), StoreGroup(4, 5)), REPLICAS, "async")
CHANGE = Change((Move((0, 1), "rz01", "rz02"), Move((4,), "rz01", "rz03")))


def test_only_what_moves_is_forbidden_and_led_by_the_replica_of_its_new_owner() -> None:
    assert forbids(STORE, CHANGE) == (Forbid(0, (0, 1)), Forbid(2, (4,)))
    assert leads(STORE, CHANGE, 7) == (Lead(0, "data-r2", 7), Lead(2, "data-r3", 7))


@pytest.mark.parametrize(
    ("of_first", "of_third", "lacking"),
    [
        (StoreAnswer(True, {"data-r2": 3, "data-r3": 9}), StoreAnswer(True), 3),
        (StoreAnswer(True, {"data-r2": 0, "data-r3": 9}), StoreAnswer(True), 0),
        # Who led may be the one that does not answer.
        (StoreAnswer(True), StoreAnswer(False), None),
        # Nobody leads by an older map any more.
        (StoreAnswer(True), StoreAnswer(True), 0),
    ],
)
def test_what_a_new_leader_lacks_is_what_others_have_that_still_lead(
    of_first: StoreAnswer, of_third: StoreAnswer, lacking: int | None
) -> None:
    itself = StoreAnswer(True, {"data-r1": 5, "data-r3": 5})
    answers = {"data-r1": of_first, "data-r2": itself, "data-r3": of_third}
    assert lacks(Lead(0, "data-r2", 2), answers) == lacking


def test_applications_are_told_when_replication_has_caught_up_and_before_writes_are_allowed() -> None:
    assert phases("gatewaysFirst", True) == (("forbid",), ("gateways",), ("catch up",), ("sidecars",), ("lift",))
    assert phases("together", False) == (("gateways", "sidecars"),)


def test_what_is_given_up_allows_writes_when_the_former_map_is_back() -> None:
    assert BACK == (("gateways", "sidecars"), ("lift",))
