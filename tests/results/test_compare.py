"""Which differences between variants are told, and which are not."""

from __future__ import annotations

from itertools import combinations
from math import inf
from pathlib import Path

import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from testbed.cli import app
from testbed.results.compare.comparison import apart, compare
from testbed.results.compare.rank_test import LEVEL, fewest_runs, holm, p_value, runs_to_tell
from testbed.results.compare.runs import read_run
from testbed.results.show.summarize import summarize
from tests.results.conftest import write_run
from tests.results.made_runs import SPEC, made


def test_no_five_pairs_would_do_but_five_against_five_reach_2_in_252() -> None:
    assert p_value([1, 2, 3, 4, 5], [6, 7, 8, 9, 10]) == pytest.approx(2 / 252)
    assert p_value([6, 7, 8, 9, 10], [1, 2, 3, 4, 5]) == pytest.approx(2 / 252)
    assert (fewest_runs(1), fewest_runs(3), fewest_runs(6)) == (4, 5, 5)


samples = st.lists(st.integers(0, 6) | st.just(inf), min_size=1, max_size=5)


@given(samples, samples)
def test_p_is_the_share_of_arrangements_that_are_as_far_apart(first: list[float], second: list[float]) -> None:
    pooled = [*first, *second]
    ranks = [sum(a < b for a in pooled) + (pooled.count(b) + 1) / 2 for b in pooled]
    mean = len(first) * (len(pooled) + 1) / 2
    sums = [abs(sum(ranks[i] for i in chosen) - mean) for chosen in combinations(range(len(pooled)), len(first))]
    assert p_value(first, second) == pytest.approx(sum(off >= sums[0] for off in sums) / len(sums))


def test_two_equal_variants_are_told_apart_in_at_most_one_of_twenty_tries() -> None:
    random = np.random.default_rng(1)
    for runs in (4, 5, 10):
        # Skewed, and rounded so that there are ties, as times to recover are.
        tries = random.lognormal(0.7, 0.3, (2000, 2, runs)).round(1).tolist()
        assert np.mean([p_value(*both) <= LEVEL for both in tries]) <= LEVEL


def test_of_four_equal_variants_any_two_are_told_apart_in_at_most_one_of_twenty_tries() -> None:
    random = np.random.default_rng(2)
    tries = random.normal(2, 0.3, (1000, 4, 5)).tolist()
    told = [min(holm([p_value(*pair) for pair in combinations(each, 2)])) <= LEVEL for each in tries]
    assert 0 < np.mean(told) <= LEVEL


def test_a_second_more_to_recover_is_found_with_five_seeds() -> None:
    random = np.random.default_rng(3)
    tries = random.normal(2.2, 0.25, (500, 2, 5)) + np.array([[0.0], [1.0]])
    assert np.mean([p_value(*both) <= LEVEL for both in tries.tolist()]) > 0.99


def test_as_many_runs_as_it_says_find_the_difference_four_times_in_five() -> None:
    deviation, gap = 1.0, 0.8
    spread = deviation * np.sqrt(4 / 5) * np.array([-1.5, -0.5, 0, 0.5, 1.5])
    runs = runs_to_tell(spread.tolist(), (spread + gap).tolist(), 1)
    assert runs is not None
    random = np.random.default_rng(4)
    tries = random.normal(0, deviation, (500, 2, runs)) + np.array([[0.0], [gap]])
    assert 0.7 < np.mean([p_value(*both) <= LEVEL for both in tries.tolist()]) < 0.92
    assert runs_to_tell([1.0, 2.0], [1.0, 2.0], 1) is None
    assert runs_to_tell([1.0, inf], [1.0, 2.0], 1) is None


def test_who_makes_as_many_more_runs_as_it_says_mostly_finds_a_difference_that_is_there() -> None:
    """Of one deviation, which five seeds seldom tell: 16 runs of each would find it four times in five."""
    random = np.random.default_rng(5)
    told, asked = [], []
    for _ in range(80):
        first, second = random.normal(0, 1, 5).tolist(), random.normal(1, 1, 5).tolist()
        wanted = runs_to_tell(first, second, 1)
        if p_value(first, second) <= LEVEL or wanted is None or wanted > 60:
            continue
        asked.append(more := max(1, wanted - 5))
        first += random.normal(0, 1, more).tolist()
        second += random.normal(1, 1, more).tolist()
        told.append(p_value(first, second) <= LEVEL)
    assert len(told) > 30
    assert 6 <= np.median(asked) <= 22
    assert np.mean(told) > 0.65


def test_holm_multiplies_the_smallest_by_all_and_never_changes_the_order() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["compare", *map(str, arguments)], env={"COLUMNS": "80"})


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Variants of 2.2 s and 3.2 s to recover, five seeds each, and one run of the first that is invalid."""
    found = []
    for seed in range(1, 6):
        found.append(made(tmp_path / f"a{seed}", seed, 2.2 + seed / 50))
        found.append(made(tmp_path / f"b{seed}", seed, 3.2 - seed / 50, retries=None))
    return [*found, made(tmp_path / "bad", 6, 99.0, verdict="invalid")]


def test_the_table_ranks_variants_and_says_what_is_real(folders: list[Path], tmp_path: Path) -> None:
    result = invoke(*folders, "--output", tmp_path / "out")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[:2] == [
        "A  spec.mesh.retries=1, spec.mesh= (5 runs, seeds 1, 2, 3, 4, 5)",
        "B  spec.mesh.retries=, spec.mesh={} (5 runs, seeds 1, 2, 3, 4, 5)",
    ]
    at = lines.index("time to recover, lose (lower is better)")
    assert [" ".join(line.split()) for line in lines[at + 1 : at + 4]] == [
        "runs median least most at most 6s against the best",
        "A 5 2.26 s 2.22 s 2.30 s 5 of 5",
        "B 5 3.14 s 3.10 s 3.18 s 5 of 5 worse (p 0.0079)",
    ]
    assert [line for line in lines if "is better" in line] == [
        "time to recover, lose (lower is better)",
        "success rate (higher is better)",
        "unanswered requests (lower is better)",
        "latency p50 of ok requests (lower is better)",
        "latency p99 of ok requests (lower is better)",
        "cross-zone share of calls (lower is better)",
        "success_rate steady (higher is better)",
    ]
    at = lines.index("latency p99 of ok requests (lower is better)")
    assert [" ".join(line.split()) for line in lines[at + 1 : at + 4]] == [
        "runs median least most unanswered against the best",
        "A 5 20.0 ms 20.0 ms 20.0 ms 3",
        "B 5 20.0 ms 20.0 ms 20.0 ms 3 not distinguishable",
    ]
    assert "left out, invalid: bad: load generator lag: too much" in lines
    assert max(map(len, lines)) <= 80
    assert all(line == line.rstrip() for line in lines)

    figures = pq.read_table(tmp_path / "out" / "figures.parquet").to_pylist()
    assert {(row["variant"], row["seed"]) for row in figures} == {(name, seed) for name in "AB" for seed in range(1, 6)}
    assert {row["machines"] for row in figures} == {""}
    differences = pq.read_table(tmp_path / "out" / "differences.parquet").to_pylist()
    told = {row["metric"] for row in differences if row["distinguishable"]}
    assert told == {"time to recover, lose"}


def test_runs_that_never_recovered_are_worse_than_any_that_did(tmp_path: Path) -> None:
    runs = [made(tmp_path / f"a{seed}", seed, 9.0, retries=9) for seed in range(4)]
    runs += [made(tmp_path / f"b{seed}", seed, None) for seed in range(4)]
    comparison = compare([read_run(run) for run in runs])
    ranking = next(each for each in comparison.rankings if each.metric.name == "time to recover, lose")
    assert [(place.variant, place.median) for place in ranking.places] == [("A", 9.0), ("B", inf)]
    assert ranking.differences[0].p == pytest.approx(2 / 70)


def test_a_sure_difference_that_is_too_small_to_matter_is_no_reason_to_choose(tmp_path: Path) -> None:
    runs = [
        made(tmp_path / f"{name}{seed}", seed, at_s + seed / 1000, retries=int(name == "a"))
        for name, at_s in (("a", 4.06), ("b", 4.13))
        for seed in range(5)
    ]
    ranking = next(each for each in compare([read_run(run) for run in runs]).rankings if "lose" in each.metric.name)
    (difference,) = ranking.differences
    assert (difference.by_chance, difference.distinguishable, difference.more_runs) == (False, False, None)
    assert "alike: 1.7 % apart" in " ".join(invoke(*runs).stdout.split())


def test_how_far_medians_are_apart_is_told_by_what_the_better_one_leaves_to_wish_for() -> None:
    assert apart(2.0, 2.2, "s") == pytest.approx(0.1)
    assert apart(0.999, 0.998, "share") == pytest.approx(1.0)
    assert apart(0.02, 0.021, "share") == pytest.approx(0.05)
    assert (apart(0.0, 0.1, "s"), apart(2.0, inf, "s"), apart(1.0, 0.9999, "share")) == (inf, inf, inf)
    assert (apart(inf, inf, "s"), apart(0.0, 0.0, "count")) == (0.0, 0.0)


def test_few_runs_tell_nothing_and_say_how_many_would(tmp_path: Path) -> None:
    runs = [made(tmp_path / f"{name}{seed}", seed, at_s + seed / 10, retries=int(at_s)) for name, at_s in
            (("a", 2.0), ("b", 3.0)) for seed in range(2)]  # fmt: skip
    assert "not distinguishable; 2 more runs of each would tell" in " ".join(invoke(*runs).stdout.split())


def test_runs_that_were_not_made_alike_are_not_put_together_silently(tmp_path: Path) -> None:
    alike = [made(tmp_path / f"a{seed}", seed, 2.0) for seed in range(2)]
    assert "not alike" not in invoke(*alike).stdout
    other = made(tmp_path / "b", 1, 2.0, retries=2, hosting="actor")
    facts = orjson.loads((other / "facts.json").read_bytes())
    (other / "facts.json").write_bytes(orjson.dumps({**facts, "machines": [{"hardware": "64 x that"}] * 2}))
    told = " ".join(invoke(*alike, other).stdout.split())
    assert "perhaps what makes the difference: machines: 2 x this (2 of A); 2 of 64 x that (1 of B)" in told
    assert "perhaps what makes the difference: pods hosted by: node (2 of A); actor (1 of B)" in told


def test_variants_that_did_not_have_the_same_machines_are_not_compared_silently(tmp_path: Path) -> None:
    def told(first: str, second: str) -> str:
        """What is said of runs of two variants on machines with these numbers."""
        runs = [
            made(tmp_path / f"{first}-{second}" / f"{retries}-{seed}", seed, 2.0, retries, machine=f"m{number}")
            for retries, machines in ((1, first), (2, second))
            for seed, number in enumerate(machines)
        ]
        return " ".join(invoke(*runs).stdout.split())

    warned = "not on the same machines, and so perhaps what makes the difference: "
    assert f"{warned}A on m1 (2); B on m2 (1), m3 (1). " in told("11", "23")
    assert f"{warned}A on m1 (2), m2 (2); B on m1 (1), m3 (3). " in told("1122", "1333")
    # As even as can be, and machines that each had one run of all.
    assert warned not in told("12312", "31231") + told("12", "34") + told("1", "2")


def test_runs_as_they_are_written_can_be_compared(tmp_path: Path) -> None:
    for name in ("a", "b"):
        summarize(write_run(tmp_path / name))
        (tmp_path / name / "scenario.yaml").write_text(yaml.safe_dump({"metadata": {"name": "x"}, "spec": SPEC}))
    result = invoke(tmp_path / "a", tmp_path / "b")
    assert (result.exit_code, result.stdout.splitlines()[0]) == (0, "A  all alike (2 runs, seeds 7, 7)")
    assert "time to recover, heal of lose-east-a" in result.stdout


def test_folders_that_cannot_be_compared_are_all_named(tmp_path: Path) -> None:
    good = made(tmp_path / "good", 1, 2.0)
    (made(tmp_path / "torn", 1, 2.0) / "summary.json").write_text("{")
    (made(tmp_path / "other", 1, 2.0) / "summary.json").write_text("{}")
    result = invoke(good, tmp_path / "none", tmp_path / "torn", tmp_path / "other")
    assert result.exit_code == 2
    wrong = ("scenario.yaml: No such file", "torn/summary.json: cannot be read", "other: summary, facts or scenario")
    assert [what for what in wrong if what not in result.stderr] == []
    assert "nothing to compare" in invoke(good, good).stderr
