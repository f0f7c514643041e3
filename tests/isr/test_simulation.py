"""Thousands of schedules in which anything goes wrong that can; and the proof that they would show errors.

`make simulate` runs more of them, and hunts each planted error from the first schedule on.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from testbed.isr.outputs import Acks
from tests.isr.invariants import Lost, Violation
from tests.isr.planted import PLANTED
from tests.isr.schedules import run_schedule
from tests.isr.simulation import Setting

SCHEDULES = 300
FOUND_WITHIN = 500


def run_all(seeds: Iterable[int], setting: Setting) -> None:
    for seed in seeds:
        try:
            run_schedule(seed, setting)
        except (Violation, AssertionError) as error:
            raise type(error)(f"schedule {seed}: {error}") from error


@pytest.mark.parametrize("setting", [Setting(), Setting(min_insync_replicas=1)])
def test_nothing_acknowledged_is_lost_and_all_get_in_sync_once_the_network_heals(setting: Setting) -> None:
    run_all(range(SCHEDULES), setting)


@pytest.mark.parametrize("setting", [Setting(unclean=True), Setting(acks=Acks.LEADER), Setting(acks=Acks.NONE)])
def test_the_same_check_finds_what_other_settings_lose(setting: Setting) -> None:
    with pytest.raises(Lost):
        run_all(range(FOUND_WITHIN), setting)


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_error_is_found(name: str) -> None:
    """From the schedule on that has found it last; where it was found is of no importance, that it is found is."""
    planted = PLANTED[name]
    with planted.in_place(), pytest.raises((Violation, AssertionError)):
        run_all(range(planted.begin, planted.begin + FOUND_WITHIN), Setting())


def test_a_schedule_is_the_same_each_time() -> None:
    assert [run_schedule(seed, Setting()).seen for seed in range(5)] == [
        run_schedule(seed, Setting()).seen for seed in range(5)
    ]
