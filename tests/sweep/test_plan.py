"""What a sweep is made of, and in which order it is run."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.sweep.plan import Ended, Run, due, left_s, rounds
from testbed.sweep.variants import BadVariants, values, variants


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
