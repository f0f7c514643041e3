"""Which machines carry runs side by side."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from testbed.control.lanes import Lane, lanes
from testbed.control.placement import MB, Machine


def machine(name: str, zone: str | None = None, memory_mb: int = 1000) -> Machine:
    return Machine(name, f"10.0.0.{name[1:]}", zone, memory_mb * MB, cpus=2.0)


def named(found: tuple[Lane, ...]) -> list[str]:
    return ["+".join(each.name for each in lane) for lane in found]


def has(memory_mb: int, *zones: str) -> Callable[[Lane], bool]:
    """Carries a run that needs so much memory in all, and machines of these zones."""

    def carries(lane: Lane) -> bool:
        labels = {each.zone for each in lane}
        return sum(each.memory_bytes for each in lane) >= memory_mb * MB and labels >= set(zones)

    return carries


FOUR = [machine(f"m{number}") for number in range(1, 5)]


def test_what_one_machine_carries_runs_on_every_one() -> None:
    assert named(lanes(FOUR, (), has(1000))) == ["m1", "m2", "m3", "m4"]


def test_what_needs_two_machines_has_two_and_the_last_ones_stay_out() -> None:
    assert named(lanes(FOUR, (), has(1500))) == ["m1+m2", "m3+m4"]
    assert named(lanes([*FOUR, machine("m5")], (), has(1500))) == ["m1+m2", "m3+m4"]


def test_where_no_two_runs_find_room_all_machines_are_for_one() -> None:
    assert named(lanes(FOUR, (), has(2500))) == ["m1+m2+m3+m4"]
    assert named(lanes(FOUR, (), has(5000))) == []
    assert named(lanes(FOUR[:1], (), has(500))) == ["m1"]


def test_more_lanes_of_more_machines_are_better_than_few_of_large_ones() -> None:
    unlike = [machine("m1", memory_mb=3000), *FOUR[1:], machine("m5")]
    assert named(lanes(unlike, (), has(2000))) == ["m1+m2", "m3+m4"]


def test_who_says_how_many_gets_so_many_or_nothing() -> None:
    assert named(lanes(FOUR, (), has(500), 2)) == ["m1+m2", "m3+m4"]
    assert named(lanes(FOUR, (), has(500), 3)) == ["m1+m2+m3"]
    assert named(lanes(FOUR, (), has(500), 4)) == ["m1+m2+m3+m4"]
    assert named(lanes(FOUR, (), has(5000), 2)) == named(lanes(FOUR, (), has(500), 5)) == []


def test_every_lane_has_machines_of_every_zone_and_such_without_a_label_come_last() -> None:
    labels = ("b", "a", "a", "b", None, "c")
    some = [machine(f"m{number}", label) for number, label in enumerate(labels, start=1)]
    assert named(lanes(some, ("a", "b"), has(0, "a", "b"), 2)) == ["m2+m1", "m3+m4"]
    assert named(lanes(some, ("a", "b"), has(0, "a", "b"), 3)) == ["m2+m1+m5", "m3+m4+m6"]


@given(
    st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.integers(1, 3)), min_size=1, max_size=9),
    st.integers(1, 6),
    st.none() | st.integers(1, 9),
)
def test_no_machine_is_in_two_lanes_and_every_lane_can_carry_a_run(
    drawn: list[tuple[str | None, int]], need: int, number: int | None
) -> None:
    some = [machine(f"m{index}", zone, memory_mb) for index, (zone, memory_mb) in enumerate(drawn)]
    carries = has(need)
    found = lanes(some, ("a", "b"), carries, number)
    used = [each for lane in found for each in lane]
    assert len(set(used)) == len(used)
    assert all(carries(lane) for lane in found)
    assert number is None or all(len(lane) == number for lane in found)
    if number is None and carries(tuple(some)):
        assert found
