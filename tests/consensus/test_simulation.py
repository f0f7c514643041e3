"""Thousands of schedules in which anything goes wrong that can; and the proof that they would show errors.

`make simulate` runs more of them, and hunts each planted error from the first schedule on.
"""

from __future__ import annotations

import pytest

from tests.consensus.invariants import Violation
from tests.consensus.planted import PLANTED
from tests.consensus.schedules import run_schedule

SCHEDULES = 2_000
PART = 250
FOUND_WITHIN = 2_000


@pytest.mark.parametrize("first", range(0, SCHEDULES, PART))
def test_safe_after_every_step_and_live_once_the_network_heals(first: int) -> None:
    for seed in range(first, first + PART):
        try:
            run_schedule(seed)
        except (Violation, AssertionError) as error:
            raise AssertionError(f"schedule {seed}: {error}") from error


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_error_is_found(name: str) -> None:
    """From the schedule on that has found it last; where it was found is of no importance, that it is found is."""
    planted = PLANTED[name]
    with planted.in_place():
        for seed in range(planted.begin, planted.begin + FOUND_WITHIN):
            try:
                run_schedule(seed)
            except (Violation, AssertionError):
                return
    raise AssertionError(f"not found in {FOUND_WITHIN} schedules from {planted.begin} on: {name}")


def test_a_schedule_is_the_same_each_time() -> None:
    assert [run_schedule(seed).steps for seed in range(5)] == [run_schedule(seed).steps for seed in range(5)]
