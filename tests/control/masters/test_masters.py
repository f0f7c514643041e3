"""Schedules in which masters are killed, cut off and paused: what is decided stays so, and no pod suffers; and the
proof that they would show errors.

`make simulate` runs more of them, and hunts each planted error from the first schedule on.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from tests.control.masters.planted import PLANTED
from tests.control.masters.schedules import Nemesis, begun, run_schedule, wait_until_ready
from tests.control.masters.simulation import TIMINGS, Simulation, Violation

SCHEDULES, PART = 60, 15
FOUND_WITHIN = 60
SEEN = {"acknowledged", "Killing", "LeaderElected", "LeaderLost", "NodeNotReady", "NotReady", "Started"}
"""Nothing is proved about what never happens."""


@pytest.mark.parametrize("first", range(0, SCHEDULES, PART))
def test_masters_agree_once_all_is_healed_and_no_takeover_stops_a_pod(first: int) -> None:
    seen: Counter[str] = Counter()
    for seed in range(first, first + PART):
        try:
            seen += run_schedule(seed).seen
        except (Violation, AssertionError) as error:
            raise AssertionError(f"schedule {seed}: {error}") from error
    assert seen.keys() >= SEEN


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


@pytest.mark.parametrize("seed", range(20))
def test_another_leads_when_the_leader_is_killed_and_nodes_miss_nothing(seed: int) -> None:
    simulation = begun(seed)
    # Between masters is a connection: what one says overtakes itself by little, if at all.
    simulation.chances = Nemesis.healed
    leader = simulation.leader()
    assert leader is not None
    before = len(simulation.events)
    killed_s = simulation.now_s
    simulation.crash(leader, reset=True)
    assert simulation.run_until(killed_s + 10.0, lambda: simulation.leader() is not None)
    assert simulation.now_s >= killed_s + 1.0, "an election begins when heartbeats were missed for its time-out"
    simulation.start(leader)
    wait_until_ready(simulation, 10.0)
    simulation.run_until(simulation.now_s + 10.0)
    reasons = [event.reason for _, _, event in simulation.events[before:]]
    assert sorted(set(reasons)) == ["Connected", "LeaderElected", "Leading"]


@pytest.mark.parametrize("seed", range(20))
def test_whoever_follows_a_new_leader_serves_as_soon_as_that_one_leads(seed: int) -> None:
    """It hears of the leader before that has committed anything, and asks what there is to know."""
    simulation = Simulation(seed)
    assert simulation.run_until(30.0, lambda: simulation.leader() is not None)
    leads_s = simulation.now_s
    assert simulation.run_until(leads_s + 10.0, lambda: simulation.seen["Serves"] == len(simulation.hosts))
    assert simulation.now_s - leads_s < TIMINGS.election_timeout_s / 2


KUBERNETES = replace(
    TIMINGS,
    leader_elect_lease_duration_s=15.0,
    leader_elect_renew_deadline_s=10.0,
    leader_elect_retry_period_s=2.0,
    lease_grace_s=40.0,
    lease_renew_s=10.0,
)


@pytest.mark.parametrize("seed", range(20))
def test_with_a_lease_of_kubernetes_controllers_run_again_after_twelve_to_twenty_seconds(seed: int) -> None:
    simulation = begun(seed, KUBERNETES)
    simulation.run_until(simulation.now_s + 10 * simulation.random.random())
    leader = simulation.leader()
    assert leader is not None
    killed_s, before = simulation.now_s, len(simulation.events)
    simulation.crash(leader, reset=True)
    simulation.at(killed_s + 5.0, simulation.start, leader)  # it comes back as another, and holds no Lease

    def led() -> bool:
        return any(event.reason == "Leading" for _, _, event in simulation.events[before:])

    assert simulation.run_until(killed_s + 30.0, led)
    assert 12.0 <= simulation.now_s - killed_s <= 20.0


def test_a_leader_that_loses_the_log_but_lives_hands_its_lease_over() -> None:
    simulation = begun(3, KUBERNETES)
    leader = simulation.leader()
    assert leader is not None
    others = [name for name in simulation.hosts if name != leader.name]
    simulation.cut = {(a, b) for other in others for a, b in ((leader.name, other), (other, leader.name))}
    simulation.run_until(simulation.now_s + 4.0)
    before, healed_s = len(simulation.events), simulation.now_s
    simulation.cut.clear()
    led = simulation.run_until(
        healed_s + 8.0, lambda: any(event.reason == "Leading" for _, _, event in simulation.events[before:])
    )
    assert led, "within a retry period, and not when the Lease of 15 s is over"
