"""Which replicas are to lead what before partitions change hands."""

from __future__ import annotations

import pytest

from testbed.control.cells.operations import Change
from testbed.control.cells.ownership import Move
from testbed.control.cells.promotion import GroupSplit, Promotion, ShardedStore, promotions
from testbed.objects.workloads import StoreGroup

STORE = ShardedStore(
    "data",
    tuple(StoreGroup(10 * number, 10 * number + 10) for number in range(10)),
    (("data-r1", "rz01"), ("data-r2", "rz02"), ("data-r3", "rz01"), ("data-r4", "rz03")),
)


def test_replicas_of_the_new_owner_come_first_and_only_groups_that_move_are_promoted() -> None:
    change = Change((Move(tuple(range(10)), "rz01", "rz02"), Move(tuple(range(30, 50)), "rz01", "rz03")))
    second, fourth = ("data-r2", "data-r1", "data-r3", "data-r4"), ("data-r4", "data-r1", "data-r2", "data-r3")
    assert promotions(STORE, change) == (
        Promotion("data", 0, second),
        Promotion("data", 3, fourth),
        Promotion("data", 4, fourth),
    )
    back = promotions(STORE, change.reverse)
    assert [each.group for each in back] == [0, 3, 4]
    assert {each.primaries for each in back} == {("data-r1", "data-r3", "data-r2", "data-r4")}


@pytest.mark.parametrize(
    "moves",
    [
        (Move((3, 4), "rz01", "rz02"),),
        (Move(tuple(range(5)), "rz01", "rz02"), Move(tuple(range(5, 10)), "rz01", "rz03")),
    ],
)
def test_a_log_has_one_leader_and_so_moves_as_a_whole(moves: tuple[Move, ...]) -> None:
    with pytest.raises(GroupSplit, match="group 0 has the partitions 0-9 and one leader"):
        promotions(STORE, Change(moves))
