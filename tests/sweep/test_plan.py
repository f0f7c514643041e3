"""What a sweep is made of, and in which order and where it is run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.sweep.plan import Ended, Machines, Run, assigned, due, left_s, rounds
from testbed.sweep.variants import BadVariants, values, variants

T = TypeVar("T")


def ended(variant: str, seed: int, verdict: str = "passed", took_s: float = 30.0) -> Ended:
    return Ended(Run(variant, seed), verdict, None, took_s)


def named(runs: list[Run]) -> list[str]:
    return [f"{run.variant}{run.seed}" for run in runs]


def test_variants_are_all_combinations_and_what_all_have_is_not_varied() -> None:
    found = variants(["spec.a=1,2", "spec.load.duration=20s", "spec.b[x].c=5ms,10ms"])
    assert [each.name for each in found] == ["A", "B", "C", "D"]
    assert found[1].overrides == ("spec.a=1", "spec.load.duration=20s", "spec.b[x].c=10ms")
    assert found[2].varied == ("spec.a=2", "spec.b[x].c=5ms")
    assert [each.overrides for each in variants([])] == [()]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1,2", ["1", "2"]),
        ("1s", ["1s"]),
        ("", [""]),
        (",5s", ["", "5s"]),
        ("[a, b], [c]", ["[a, b]", "[c]"]),
        ("{a: [1, 2], b: 3},", ["{a: [1, 2], b: 3}", ""]),
        ("'a,b',c", ["'a,b'", "c"]),
        ('"a\\",b",c', ['"a\\",b"', "c"]),
        ('"a\\\\",c', ['"a\\\\"', "c"]),
        ("'it''s, so',c", ["'it''s, so'", "c"]),
        ("it's,that's", ["it's", "that's"]),
        ("{a: 'x, }', b: \"]\"}, 2", ["{a: 'x, }', b: \"]\"}", "2"]),
        ("{a: 1, b", ["{a: 1, b"]),
    ],
)
def test_commas_within_brackets_and_quotes_part_nothing(text: str, found: list[str]) -> None:
    assert values(text) == found


plain = st.text(st.characters(blacklist_characters=",[]{}\"'\\", blacklist_categories=["Cs", "Cc"]), max_size=5)


@given(st.lists(plain.map(str.strip), min_size=1, max_size=5))
def test_what_is_joined_by_commas_is_parted_again(parts: list[str]) -> None:
    assert values(",".join(parts)) == parts
    assert values(",".join(f"[{part}, {part}]" for part in parts)) == [f"[{part}, {part}]" for part in parts]


def test_everything_that_is_wrong_with_variants_is_told_at_once() -> None:
    with pytest.raises(BadVariants) as caught:
        variants(["nonsense", "a=1,2", "a=3", "b=1, 1", "c=" + ",".join(map(str, range(60)))])
    assert caught.value.problems == (
        "--set nonsense: must be path=value, for example spec.load.duration=60s",
        "--set a: given 2 times",
        "--set b=1: given 2 times",
        "240 variants are too many: 100 at most",
    )


def test_each_round_has_all_variants_and_begins_with_another() -> None:
    assert [named(each) for each in rounds("ABC", [7, 8, 9, 10])] == [
        ["A7", "B7", "C7"],
        ["B8", "C8", "A8"],
        ["C9", "A9", "B9"],
        ["A10", "B10", "C10"],
    ]


def test_what_is_complete_is_not_run_again_and_what_was_interrupted_is() -> None:
    done = [ended("A", 1), ended("B", 1, "failed"), ended("B", 2, "interrupted")]
    assert named(due("AB", [1, 2], done)) == ["B2", "A2"]


def test_an_invalid_run_is_repeated_once_at_the_end_of_its_round() -> None:
    done = [ended("A", 1, "invalid")]
    assert named(due("AB", [1, 2], done)) == ["B1", "A1", "B2", "A2"]
    done += [ended("B", 1), ended("A", 1, "none")]
    assert named(due("AB", [1, 2], done)) == ["B2", "A2"]


def test_more_seeds_are_run_after_those_that_were() -> None:
    done = [ended(run.variant, run.seed) for run in due("AB", [1, 2], [])]
    assert named(due("AB", [1, 2, 3], done)) == ["A3", "B3"]


@given(
    st.lists(st.sampled_from(["passed", "failed", "invalid", "none", "interrupted"]), max_size=60),
    st.integers(1, 4),
    st.integers(1, 4),
)
def test_whatever_happens_every_run_is_complete_or_was_tried_twice(
    verdicts: list[str], number: int, repeat: int
) -> None:
    names, seeds = "ABCD"[:number], list(range(repeat))
    done: list[Ended] = []
    for verdict in verdicts:
        if not (left := due(names, seeds, done)):
            break
        done.append(Ended(left[0], verdict, None, 1.0))
    else:
        while left := due(names, seeds, done):
            done.append(Ended(left[0], "passed", None, 1.0))
    for run in (run for each in rounds(names, seeds) for run in each):
        tries = [each for each in done if each.run == run and each.verdict != "interrupted"]
        assert 1 <= len(tries) <= 2
        assert [each for each in tries if each.is_complete] == ([tries[-1]] if tries[-1].is_complete else [])


def test_time_left_is_told_from_what_runs_took() -> None:
    assert left_s(4, [], 50.0) == 200.0
    assert left_s(4, [ended("A", 1, took_s=30.0), ended("A", 2, "interrupted", 500.0)], 50.0) == 120.0
    assert left_s(5, [], 50.0, lanes=2) == 150.0


class SideBySide:
    """A sweep that is carried out in lanes, of two machines each. Times are in the time that a run takes at least."""

    def __init__(self, variants: int, repeat: int, lanes: int) -> None:
        self.names, self.seeds = "ABCDEFGH"[:variants], list(range(repeat))
        self.lanes: list[Machines] = [(f"m{2 * lane}", f"m{2 * lane + 1}") for lane in range(lanes)]
        self.ended: list[Ended] = []
        self.under_way: dict[Machines, Run] = {}
        self.begun: list[tuple[float, Run, Machines]] = []

    def carry_out(self, verdicts: Iterator[str], took: Iterator[float], most: int = 1000) -> None:
        """Until nothing is left, or so many have ended. Then those under way are interrupted."""
        now, ends = 0.0, {}
        for _ in range(most):
            left = due(self.names, self.seeds, self.ended)
            for lane in self.lanes:
                queue = assigned(self.lanes, left, self.under_way, self.ended)[lane]
                if lane not in self.under_way and queue:
                    assert queue[0] not in self.under_way.values()
                    assert not {name for each in self.under_way for name in each} & set(lane)
                    self.under_way[lane] = queue[0]
                    ends[lane] = now + next(took)
                    self.begun.append((now, queue[0], lane))
            if not self.under_way:
                assert not left, "nothing is under way, and all lanes are free"
                return
            lane = min(self.under_way, key=lambda each: ends[each])
            now = ends[lane]
            self._end(lane, next(verdicts))
        for lane in list(self.under_way):
            self._end(lane, "interrupted")

    def _end(self, lane: Machines, verdict: str) -> None:
        self.ended.append(Ended(self.under_way.pop(lane), verdict, None, 1.0, machines=lane))

    def visits(self, variant: str) -> list[int]:
        """Of each lane, by tries that were not interrupted."""
        of = Counter(
            each.machines for each in self.ended if each.run.variant == variant and each.verdict != "interrupted"
        )
        return [of[lane] for lane in self.lanes]


def always(value: T) -> Iterator[T]:
    while True:
        yield value


def drawn(data: st.DataObject, values: st.SearchStrategy[T]) -> Iterator[T]:
    while True:
        yield data.draw(values)


def test_variants_of_a_round_run_side_by_side_and_change_machines_with_every_round() -> None:
    sweep = SideBySide(variants=2, repeat=4, lanes=4)
    sweep.carry_out(always("passed"), iter([1.0] * 8))
    assert [(at, f"{run.variant}{run.seed}", lane[0]) for at, run, lane in sweep.begun] == [
        (0.0, "A0", "m0"),
        (0.0, "B0", "m2"),
        (0.0, "B1", "m4"),
        (0.0, "A1", "m6"),
        (1.0, "B2", "m0"),
        (1.0, "A2", "m2"),
        (1.0, "A3", "m4"),
        (1.0, "B3", "m6"),
    ]


def test_what_is_repeated_runs_on_other_machines() -> None:
    sweep = SideBySide(variants=2, repeat=1, lanes=2)
    sweep.carry_out(iter(["invalid", "passed", "passed"]), iter([1.0, 1.5, 1.0]))
    assert [(f"{run.variant}{run.seed}", lane[0]) for _, run, lane in sweep.begun] == [
        ("A0", "m0"),
        ("B0", "m2"),
        ("A0", "m2"),
    ]


@given(st.integers(1, 7), st.integers(1, 9), st.integers(1, 6), st.data())
def test_every_run_is_run_once_and_every_variant_visits_each_lane_as_evenly_as_can_be(
    variants: int, repeat: int, lanes: int, data: st.DataObject
) -> None:
    sweep = SideBySide(variants, repeat, lanes)
    sweep.carry_out(always("passed"), drawn(data, st.floats(1.0, 3.0)))
    assert Counter(run for _, run, _ in sweep.begun) == {
        Run(name, seed): 1 for name in sweep.names for seed in sweep.seeds
    }
    for name in sweep.names:
        assert max(sweep.visits(name)) - min(sweep.visits(name)) <= 1


@given(st.integers(1, 7), st.integers(1, 9), st.integers(1, 6))
def test_lanes_are_not_left_idle_for_that(variants: int, repeat: int, lanes: int) -> None:
    sweep = SideBySide(variants, repeat, lanes)
    sweep.carry_out(always("passed"), always(1.0))
    least = -(-variants * repeat // lanes)
    assert least - 1 <= max(at for at, _, _ in sweep.begun) <= least


@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 4), st.integers(0, 15), st.data())
def test_a_sweep_goes_on_after_any_end_with_whichever_lanes_there_are_then(
    variants: int, repeat: int, lanes: int, most: int, data: st.DataObject
) -> None:
    sweep = SideBySide(variants, repeat, lanes)
    verdicts = drawn(data, st.sampled_from(["passed", "failed", "invalid", "none"]))
    took = drawn(data, st.floats(1.0, 3.0))
    sweep.carry_out(verdicts, took, most)
    sweep.lanes = sweep.lanes[: data.draw(st.integers(1, lanes))]
    sweep.carry_out(verdicts, took)
    assert not due(sweep.names, sweep.seeds, sweep.ended)
    for run in (Run(name, seed) for name in sweep.names for seed in sweep.seeds):
        tries = [each for each in sweep.ended if each.run == run and each.verdict != "interrupted"]
        assert 1 <= len(tries) <= 2
        assert not any(each.is_complete for each in tries[:-1])
        if len(tries) == 2 and len(sweep.lanes) > 1:
            assert tries[0].machines != tries[1].machines
