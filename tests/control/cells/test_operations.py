"""Operations as plans: what changes with each step, what is taken back, and what cannot be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.control.cells.operations import (
    Evacuate,
    FailOver,
    Judge,
    MovePartitions,
    Operation,
    OperationImpossible,
    PlannedStep,
    PopOut,
    RollBack,
    ScheduledOperation,
    SwitchGroup,
    changed,
    planned,
    taken_back,
)
from testbed.control.cells.ownership import partitions_of, problem_of
from testbed.objects.cells import Cell, City, DeploymentGroup, PartitionKey, PartitionMap, PartitionRule

BLUE_GREEN = (DeploymentGroup("blue", 70), DeploymentGroup("grey", 27), DeploymentGroup("green", 3))
MAP = PartitionMap(
    "cells",
    1,
    PartitionKey("header", "x-user-id"),
    PartitionRule("modulo"),
    (
        Cell("rz01", ("east-a",), BLUE_GREEN, backup="rz02"),
        Cell("rz02", ("east-b",), backup="rz03"),
        Cell("rz03", ("west-a",)),
        Cell("rz04", ("west-b",)),
        Cell("ez01", ("west-b",), elastic=True),
    ),
    ("rz01",) * 30 + ("rz02",) * 30 + ("rz03",) * 20 + ("rz04",) * 20,
    (City("east", ("east-a", "east-b")), City("west", ("west-a", "west-b"))),
)
NAMES = [cell.name for cell in MAP.cells]


def played(steps: Sequence[PlannedStep], cell_map: PartitionMap = MAP) -> list[PartitionMap]:
    maps = []
    for step in steps:
        cell_map = changed(cell_map, step.change)
        maps.append(cell_map)
    return maps


def at_once(operation: Operation, for_s: float | None = None) -> tuple[PlannedStep, ...]:
    return planned(MAP, [ScheduledOperation("it", 5.0, operation, for_s=for_s)])


_OPERATIONS = st.one_of(
    st.builds(MovePartitions, st.lists(st.integers(0, 99), min_size=1, unique=True).map(tuple), st.sampled_from(NAMES)),
    st.builds(FailOver, st.sampled_from(NAMES)),
    st.builds(Evacuate, st.sampled_from(["east", "west"])),
    st.builds(PopOut, st.sampled_from(NAMES), st.just("ez01"), st.floats(0.01, 1)),
    st.builds(SwitchGroup, st.just(("rz01",)), st.sampled_from(["blue", "grey", "green"])),
)
_SHARES = st.sets(st.integers(1, 99), max_size=4).map(lambda found: (*sorted(each / 100 for each in found), 1.0))


@given(st.lists(st.tuples(_OPERATIONS, _SHARES, st.floats(0, 50), st.floats(0, 5), st.booleans()), max_size=5))
def test_each_partition_has_one_owner_after_any_operations_and_what_is_taken_back_leaves_nothing_behind(
    asked: Sequence[tuple[Operation, tuple[float, ...], float, float, bool]],
) -> None:
    operations = []
    for number, (operation, steps, at_s, pause_s, back) in enumerate(asked):
        lasts_s = pause_s * (len(steps) - 1) + 1 if back else None
        new = ScheduledOperation(f"it-{number}", at_s, operation, steps, pause_s, lasts_s)
        try:
            planned(MAP, [*operations, new])
        except OperationImpossible:
            continue
        operations.append(new)
    steps = planned(MAP, operations)
    assert [step.at_s for step in steps] == sorted(step.at_s for step in steps)
    for version, cell_map in enumerate(played(steps), 2):
        assert (cell_map.version, len(cell_map.owners)) == (version, 100)
        assert problem_of(cell_map) is None
    if steps and all(each.for_s is not None for each in operations):
        assert replace(played(steps)[-1], version=1) == MAP
        assert steps[-1].lent == frozenset()


@given(_OPERATIONS, _SHARES)
def test_steps_together_are_what_is_done_at_once(operation: Operation, shares: tuple[float, ...]) -> None:
    try:
        (whole,) = played(at_once(operation))
    except OperationImpossible:
        return
    last = played(planned(MAP, [ScheduledOperation("it", 5.0, operation, shares, 1.0)]))[-1]
    assert replace(last, version=2) == whole


@given(_OPERATIONS)
def test_a_step_and_its_reverse_is_the_identity(operation: Operation) -> None:
    try:
        (step,) = at_once(operation)
    except OperationImpossible:
        return
    assert replace(changed(changed(MAP, step.change), step.change.reverse), version=1) == MAP


def test_partitions_move_in_steps_from_the_first_one_on() -> None:
    move = ScheduledOperation("move", 10.0, MovePartitions(tuple(range(10)), "rz03"), (0.1, 0.5, 1.0), 2.0)
    steps = planned(MAP, [move])
    assert [(step.at_s, step.number, step.of) for step in steps] == [(10.0, 1, 3), (12.0, 2, 3), (14.0, 3, 3)]
    assert [sorted(step.change.partitions) for step in steps] == [[0], [1, 2, 3, 4], [5, 6, 7, 8, 9]]


def test_a_cell_fails_over_to_its_backup_which_has_its_partitions_on_loan_until_they_go_back() -> None:
    there, back = at_once(FailOver("rz01"), for_s=4.0)
    after, restored = played([there, back])
    assert set(after.owners[:30]) == {"rz02"}
    assert (there.lent, back.lent) == (frozenset(range(30)), frozenset())
    assert (back.at_s, back.reverts, restored.owners) == (9.0, True, MAP.owners)


def test_an_evacuated_city_goes_to_backups_elsewhere_and_else_in_turn_to_all_cells_that_are_not_elastic() -> None:
    (after,) = played(at_once(Evacuate("east")))
    # rz02 has a backup in the west; that of rz01 is in the east, too.
    assert after.owners[30:60] == ("rz03",) * 30
    assert after.owners[:4] == ("rz03", "rz04", "rz03", "rz04")
    assert not {"rz01", "rz02", "ez01"} & set(after.owners)


def test_the_last_part_of_a_cell_pops_out() -> None:
    (after,) = played(at_once(PopOut("rz01", "ez01", 0.5)))
    assert (partitions_of(after, "rz01"), partitions_of(after, "ez01")) == (tuple(range(15)), tuple(range(15, 30)))


def test_a_group_takes_over_in_whole_percentages_that_sum_to_100() -> None:
    switch = ScheduledOperation("switch", 1.0, SwitchGroup(("rz01",), "green"), (0.01, 0.1, 0.5, 1.0), 1.0)
    weights = [[group.weight for group in cell_map.cell("rz01").groups] for cell_map in played(planned(MAP, [switch]))]
    assert [sum(each) for each in weights] == [100] * 4
    assert (weights[0], weights[-1]) == ([69, 27, 4], [0, 0, 100])


@pytest.mark.parametrize(
    ("operations", "why"),
    [
        ([FailOver("rz04")], "cell rz04 has no backup"),
        ([MovePartitions((0, 1), "rz01")], "it changes nothing: all of that is there already"),
        ([SwitchGroup(("rz02",), "green")], "cell rz02 has no deployment group 'green'"),
        ([FailOver("rz01"), MovePartitions((29, 30), "rz04")], "partition 29 is changed by 'op-0', which is not over"),
        ([SwitchGroup(("rz01",), "blue"), SwitchGroup(("rz01",), "green")], "cell rz01 is changed by 'op-0'"),
    ],
)
def test_what_cannot_be_done_says_why(operations: Sequence[Operation], why: str) -> None:
    scheduled = [ScheduledOperation(f"op-{number}", number, each, for_s=10.0) for number, each in enumerate(operations)]
    with pytest.raises(OperationImpossible, match=why) as impossible:
        planned(MAP, scheduled)
    assert impossible.value.operation == f"op-{len(operations) - 1}"


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 50)), max_size=30), st.floats(0, 1), st.integers(1, 5))
def test_an_operation_is_given_up_by_the_share_of_the_last_seconds_alone(
    seconds: list[tuple[int, int]], above: float, over_s: int
) -> None:
    judge, total = Judge(RollBack(above, float(over_s))), 0
    for number, (sent, not_ok) in enumerate(seconds):
        total += not_ok
        last = seconds[number - over_s + 1 : number + 1]
        expected = number >= over_s and sum(each[1] for each in last) > above * sum(each[0] for each in last)
        assert judge.gives_up(float(number), sent, total) == expected


def test_what_is_done_of_an_operation_can_be_taken_back_at_any_step() -> None:
    move = ScheduledOperation("move", 0.0, MovePartitions(tuple(range(25, 35)), "rz03"), (0.1, 0.7, 1.0), 1.0)
    switch = ScheduledOperation("switch", 0.0, SwitchGroup(("rz01",), "green"), (0.1, 0.7, 1.0), 1.0)
    for operation in (move, switch):
        steps = planned(MAP, [operation])
        for done in range(1, 4):
            after = played(steps[:done])[-1]
            back = changed(after, taken_back([step.change for step in steps[:done]]))
            assert replace(back, version=1) == MAP
