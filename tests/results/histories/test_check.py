"""The checker finds what is planted, proves nothing from what is concurrent, and agrees with trying every order."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.results.measure.histories.check import check
from testbed.results.measure.histories.findings import Finding, Kind
from testbed.results.measure.histories.linearizability import linearizable
from testbed.results.measure.histories.operations import Operation, Outcome, by_key
from testbed.results.measure.histories.registers import findings_of
from tests.results.histories.registers import Store, read, write


def kinds(*operations: Operation) -> set[Kind]:
    return {finding.kind for finding in check(operations).findings}


# --- what single findings mean ------------------------------------------------------------------------------------


def test_an_acknowledged_write_that_no_last_read_shows_is_lost() -> None:
    first, lost, last = write("a", 0, 1), write("b", 2, 3), read("a", 4, 5)
    assert check([first, lost, last]).of_kind(Kind.LOST_WRITE) == [Finding(Kind.LOST_WRITE, lost, last)]


@pytest.mark.parametrize("outcome", ["unknown", "failed"])
def test_a_write_that_was_not_acknowledged_cannot_be_lost(outcome: str) -> None:
    assert not kinds(write("a", 0, 1), write("b", 2, 3, outcome), read("a", 4, 5))


def test_a_write_that_a_later_read_shows_was_not_lost_but_the_earlier_read_was_stale() -> None:
    stale, newer = read("a", 4, 5), write("b", 2, 3)
    report = check([write("a", 0, 1), newer, stale, read("b", 6, 7)])
    assert not report.of_kind(Kind.LOST_WRITE)
    assert report.of_kind(Kind.STALE_READ) == [Finding(Kind.STALE_READ, stale, newer)]


def test_what_a_follower_lacks_is_stale_and_not_lost() -> None:
    by_follower, newer = read("a", 4, 5, owner="data-r2"), write("b", 2, 3)
    report = check([write("a", 0, 1), newer, by_follower])
    assert not report.of_kind(Kind.LOST_WRITE)
    assert report.of_kind(Kind.STALE_READ) == [Finding(Kind.STALE_READ, by_follower, newer)]
    by_leader = read("a", 6, 7)
    assert check([write("a", 0, 1), newer, by_follower, by_leader]).of_kind(Kind.LOST_WRITE)


def test_what_is_concurrent_proves_nothing() -> None:
    assert not kinds(write("a", 0, 3), write("b", 1, 2), read("a", 4, 5))
    assert not kinds(write("a", 0, 1), write("b", 2, 4), read("a", 3, 5))
    assert not kinds(write("a", 0, 1), write("b", 1, 2, "unknown"), read("a", 4, 5), read("b", 6, 7))


def test_a_process_that_reads_an_older_value_than_before() -> None:
    """Nothing is stale: the newer write is not acknowledged yet."""
    seen, older = read("b", 3, 4), read("a", 5, 6)
    report = check([write("a", 0, 1), write("b", 2, 9), seen, older])
    assert report.of_kind(Kind.NON_MONOTONIC_READ) == [Finding(Kind.NON_MONOTONIC_READ, older, seen)]
    assert not report.of_kind(Kind.STALE_READ)


def test_two_processes_that_see_two_writes_in_different_order_are_not_linearizable() -> None:
    """No single read proves it."""
    both = (write("a", 0, 9, process="w1"), write("b", 0, 9, process="w2"))
    one = (read("a", 1, 2, process="r1"), read("b", 3, 4, process="r1"))
    other = (read("b", 1.5, 2.5, process="r2"), read("a", 5, 6, process="r2"))
    assert kinds(*both, *one, *other) == {Kind.NOT_LINEARIZABLE}
    assert not kinds(*both, *one)


def test_a_read_of_what_failed_or_was_never_written() -> None:
    failed = write("a", 0, 1, "failed")
    report = check([failed, read("a", 2, 3), read("x", 4, 5)])
    assert [finding.other for finding in report.of_kind(Kind.UNWRITTEN_READ)] == [failed, None]


def test_two_owners_that_take_writes_in_turns() -> None:
    """A partition that moves once has an owner before and one after."""
    moved = [write("a", 0, 1, owner="x"), write("b", 2, 3, owner="x"), write("c", 4, 5, owner="y")]
    assert Kind.DOUBLE_WRITE not in kinds(*moved)
    again = write("d", 6, 7, owner="x")
    assert check([*moved, again]).of_kind(Kind.DOUBLE_WRITE) == [Finding(Kind.DOUBLE_WRITE, again, moved[2])]
    elsewhere = replace(again, partition="8")
    assert Kind.DOUBLE_WRITE not in kinds(*moved, elsewhere)


def test_a_value_that_is_written_twice_to_a_key_is_refused() -> None:
    with pytest.raises(ValueError, match="key k: each write needs a value of its own"):
        check([write("a", 0, 1), write("a", 2, 3)])


def test_a_search_that_is_too_long_is_given_up_and_said_so() -> None:
    """Twelve writes at once, and at last a read of a value that nobody wrote."""
    writes = [write(str(number), 0, 10, process=f"w{number}") for number in range(12)]
    report = check([*writes, read("nobody's", 11, 12)], most_configurations=1_000)
    assert report.gave_up == ("k",)
    assert not report.of_kind(Kind.NOT_LINEARIZABLE)


# --- whole histories ----------------------------------------------------------------------------------------------


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    report = check(Store(Random(1), keys=20, processes=10).history(5_000))
    assert report.findings == ()
    assert report.gave_up == ()


@pytest.mark.parametrize("seed", range(10))
def test_one_value_of_long_ago_in_thousands_of_operations_is_found(seed: int) -> None:
    history = Store(Random(seed), keys=20, processes=10).history(3_000)
    reads = [place for place, operation in enumerate(history) if place > 2_000 and not operation.is_write]
    place = Random(seed).choice([place for place in reads if history[place].outcome is Outcome.OK])
    key = history[place].key
    old = next(one.value for one in history if one.key == key and one.is_write and one.outcome is Outcome.OK)
    history[place] = replace(history[place], value=old)
    report = check(history)
    assert history[place] in [finding.operation for finding in report.of_kind(Kind.STALE_READ)]
    assert [finding.operation.key for finding in report.of_kind(Kind.NOT_LINEARIZABLE)] == [key]


def test_findings_come_by_partition_and_time() -> None:
    early, late = (write("a", 0, 1), read(None, 2, 3)), (write("c", 4, 5), read(None, 6, 7))
    other = [replace(operation, key="l", partition="3") for operation in late]
    report = check([*early, *other])
    places = [(finding.operation.partition, finding.operation.invoked_s) for finding in report.findings]
    assert places == sorted(places)
    assert {partition for partition, _ in places} == {"3", "7"}


# --- against trying every order -----------------------------------------------------------------------------------


@st.composite
def histories(draw: st.DrawFn) -> list[Operation]:
    """Each operation by a process of its own, as they may overlap in any way."""
    operations = []
    count = draw(st.integers(1, 6))
    for number in range(count):
        begin = draw(st.integers(0, 8))
        end = begin + draw(st.integers(0, 5))
        outcome = draw(st.sampled_from(["ok", "ok", "ok", "unknown", "failed"]))
        if draw(st.booleans()):
            operations.append(write(str(number), begin, end, outcome, process=f"p{number}"))
        else:
            value = draw(st.sampled_from([None, *map(str, range(count))]))
            operations.append(read(value, begin, end, outcome, process=f"p{number}"))
    return operations


def any_order_explains(operations: list[Operation]) -> bool:
    """By trying: writes of unknown outcome may be left out, or come at any time after they began."""
    certain = [one for one in operations if one.outcome is Outcome.OK]
    unknown = [one for one in operations if one.outcome is Outcome.UNKNOWN and one.is_write]
    for chosen in range(1 << len(unknown)):
        taken = certain + [one for place, one in enumerate(unknown) if chosen >> place & 1]
        if any(explains(order) for order in permutations(taken)):
            return True
    return False


def explains(order: tuple[Operation, ...]) -> bool:
    value, begun_s = None, float("-inf")
    for operation in order:
        if operation.done_s < begun_s:
            return False  # it was over before one that comes earlier in this order began
        begun_s = max(begun_s, operation.invoked_s)
        if operation.is_write:
            value = operation.value
        elif operation.value != value:
            return False
    return True


@given(histories())
def test_linearizable_is_what_some_order_explains(operations: list[Operation]) -> None:
    (history,) = by_key(operations)
    answer = linearizable(history, 10_000)
    assert not answer.gave_up
    assert (answer.stuck is None) == any_order_explains(operations)


@given(histories())
def test_what_single_reads_prove_no_order_explains(operations: list[Operation]) -> None:
    (history,) = by_key(operations)
    if findings_of(history):
        assert not any_order_explains(operations)
