"""Schedules in which masters are killed, cut off and paused: what is decided stays so, and no pod suffers."""

from __future__ import annotations

import pytest

from tests.control.masters.schedules import Violation, begun, run_schedule, wait_until_ready

SCHEDULES, PART = 120, 30


@pytest.mark.parametrize("first", range(0, SCHEDULES, PART))
def test_masters_agree_once_all_is_healed_and_no_takeover_stops_a_pod(first: int) -> None:
    for seed in range(first, first + PART):
        try:
            run_schedule(seed)
        except (Violation, AssertionError) as error:
            raise AssertionError(f"schedule {seed}: {error}") from error


def test_another_leads_when_the_leader_is_killed_and_nodes_miss_nothing() -> None:
    simulation = begun(7)
    leader = simulation.leader()
    assert leader is not None
    before = len(simulation.events)
    killed_s = simulation.now_s
    simulation.crash(leader, reset=True)
    assert simulation.run_until(killed_s + 3.0, lambda: simulation.leader() is not None)
    assert simulation.now_s >= killed_s + 1.0, "an election begins when heartbeats were missed for its time-out"
    simulation.start(leader)
    wait_until_ready(simulation, 10.0)
    simulation.run_until(simulation.now_s + 10.0)
    reasons = [event.reason for _, _, event in simulation.events[before:]]
    assert sorted(set(reasons)) == ["Connected", "LeaderElected", "Leading"]
