from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.schedule import schedule
from loadgen.settings import OpenSource, RequestTemplate, Settings

OFTEN = RequestTemplate("often", "GET", "/", 9.0, {}, None)
SELDOM = RequestTemplate("seldom", "GET", "/", 1.0, {}, None)


def settings(*sources: OpenSource, seed: int = 7, zone: str = "a", duration_s: float = 10.0) -> Settings:
    return Settings(zone, seed, sources, duration_s, (OFTEN, SELDOM), 5.0, 1.0, Path("e"), 3.0, Path("r"), None)


sources = st.builds(OpenSource, st.floats(0.1, 100.0), st.sampled_from(["poisson", "constant"]))


@given(st.lists(sources, max_size=4), st.integers(0, 9))
def test_offsets_rise_stay_within_the_duration_and_follow_from_the_seed(
    open_sources: list[OpenSource], seed: int
) -> None:
    planned = list(schedule(settings(*open_sources, seed=seed)))
    offsets = [offset_s for offset_s, _ in planned]
    assert offsets == sorted(offsets)
    assert all(0.0 <= offset_s < 10.0 for offset_s in offsets)
    assert planned == list(schedule(settings(*open_sources, seed=seed)))


def test_poisson_arrivals_have_the_rate_and_the_spread_of_a_poisson_process() -> None:
    offsets = [offset_s for offset_s, _ in schedule(settings(OpenSource(200.0), duration_s=100.0))]
    gaps = [later - earlier for earlier, later in pairwise(offsets)]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert len(offsets) == pytest.approx(20_000, rel=0.03)
    assert deviation == pytest.approx(mean, rel=0.05)


def test_constant_arrivals_are_even_and_sources_are_out_of_phase() -> None:
    one = [offset_s for offset_s, _ in schedule(settings(OpenSource(100.0, "constant")))]
    assert len(one) == 1000
    assert all(later - earlier == pytest.approx(0.01) for earlier, later in pairwise(one))
    both = [offset_s for offset_s, _ in schedule(settings(*[OpenSource(100.0, "constant")] * 2))]
    assert len(set(both)) == 2000


def test_zones_and_seeds_have_schedules_of_their_own() -> None:
    plans = {
        (seed, zone): tuple(offset_s for offset_s, _ in schedule(settings(OpenSource(10.0), seed=seed, zone=zone)))
        for seed in (1, 2)
        for zone in ("a", "b")
    }
    assert len(set(plans.values())) == 4


def test_requests_come_in_the_shares_of_their_weights() -> None:
    names = [request.name for _, request in schedule(settings(OpenSource(1000.0)))]
    assert names.count("seldom") / len(names) == pytest.approx(0.1, abs=0.02)
