"""Synthetic clocks: the estimate is never further from the truth than it says."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.results.tables.clocks import estimate

EPOCH_S = 1.7e9
ROUNDING_S = 1e-9


@dataclass(frozen=True)
class Reading:
    sent_s: float
    remote_monotonic_s: float
    remote_epoch_s: float
    received_s: float


@dataclass(frozen=True)
class Clock:
    """A remote clock that was `offset_s` ahead at local 0."""

    offset_s: float
    drift: float = 0.0

    def at(self, local_s: float) -> float:
        return local_s + self.offset_s + self.drift * local_s


def ask(clock: Clock, start_s: float, length_s: float, random: Random, *, way_s: float = 1e-4) -> list[Reading]:
    """Five questions a second; each way takes `way_s` and, now and then, up to a hundred times that, on its own."""

    def takes_s() -> float:
        return way_s * (1 + 100 * random.random() ** 6)

    readings = []
    for number in range(int(length_s * 5) + 1):
        sent_s = start_s + number / 5
        read_s = sent_s + takes_s()
        remote_s = clock.at(read_s)
        readings.append(Reading(sent_s, remote_s, EPOCH_S + remote_s, read_s + takes_s()))
    return readings


clocks = st.builds(Clock, st.floats(-1e6, 1e6), st.floats(-100e-6, 100e-6))


@given(
    clock=clocks,
    start_s=st.floats(0, 1e5),
    length_s=st.floats(0, 120),
    way_s=st.floats(1e-5, 5e-3),
    seed=st.integers(0, 2**32),
)
def test_the_error_is_never_larger_than_declared(
    clock: Clock, start_s: float, length_s: float, way_s: float, seed: int
) -> None:
    readings = ask(clock, start_s, length_s, Random(seed), way_s=way_s)
    found = estimate(readings)
    end_s = readings[-1].received_s
    for local_s in (start_s, start_s + length_s / 3, found.at_s, end_s):
        assert abs(found.to_remote(local_s) - clock.at(local_s)) <= found.error_s + ROUNDING_S
        # Turned back, an error of the remote clock is one of nearly the same size.
        assert abs(found.to_local(clock.at(local_s)) - local_s) <= found.error_s * 1.001 + ROUNDING_S


@given(clock=clocks, seed=st.integers(0, 2**32))
def test_the_drift_of_a_minute_is_found(clock: Clock, seed: int) -> None:
    found = estimate(ask(clock, 1000.0, 60.0, Random(seed)))
    assert found.drift == pytest.approx(clock.drift, abs=20e-6)
    assert found.error_s < 0.002


def test_a_short_run_has_no_drift() -> None:
    found = estimate(ask(Clock(5.0, 80e-6), 0.0, 15.0, Random(3)))
    assert found.drift == 0.0
    assert found.error_s > 15 * 80e-6 / 2


def test_slow_answers_do_not_spoil_the_estimate() -> None:
    clock, random = Clock(-3.0, 40e-6), Random(5)
    readings = ask(clock, 0.0, 60.0, random)
    slow = [
        Reading(r.sent_s, clock.at(r.sent_s + 0.4), EPOCH_S, r.received_s + 0.4)
        for r in readings
        if random.random() < 0.8
    ]
    assert estimate([*readings, *slow]).error_s < 0.002


def test_the_order_of_readings_does_not_matter() -> None:
    readings = ask(Clock(7.0), 0.0, 30.0, Random(1))
    assert estimate(readings[::-1]) == estimate(readings)


def test_readings_may_stop_for_a_while() -> None:
    clock = Clock(100.0, -60e-6)
    readings = ask(clock, 0.0, 10.0, Random(1)) + ask(clock, 300.0, 10.0, Random(2))
    found = estimate(readings)
    assert found.drift == pytest.approx(clock.drift, abs=5e-6)
    assert abs(found.to_remote(150.0) - clock.at(150.0)) <= found.error_s


def test_the_remote_machines_own_clocks_are_compared() -> None:
    found = estimate(ask(Clock(7.0, 1e-5), 0.0, 30.0, Random(1)))
    assert found.epoch_minus_monotonic_s == pytest.approx(EPOCH_S, abs=1e-6)


def test_one_reading_is_enough_and_none_is_an_error() -> None:
    found = estimate([Reading(10.0, 15.001, EPOCH_S, 10.002)])
    assert found.offset_s == pytest.approx(5.0)
    assert found.drift == 0.0
    assert 0.001 <= found.error_s < 0.0011
    with pytest.raises(ValueError, match="no reading"):
        estimate([])
