"""The phases into which faults divide a run."""

from __future__ import annotations

from testbed.results.measure.phases import phases
from testbed.results.tables.facts import AppliedFault


def spans(*faults: AppliedFault) -> dict[str, tuple[float, float]]:
    return {phase.name: (phase.start_s, phase.end_s) for phase in phases(5.0, 40.0, faults)}


def test_a_fault_that_heals_has_a_time_during_and_a_time_after_it() -> None:
    assert spans(AppliedFault("outage", 12.0, 12.0, 25.0)) == {
        "warmup": (0.0, 5.0),
        "steady": (5.0, 12.0),
        "during outage": (12.0, 25.0),
        "after outage": (25.0, 40.0),
    }


def test_a_kill_has_only_a_time_after_it_which_ends_with_the_next_fault() -> None:
    kill = AppliedFault("kill", 12.0, 12.0, instant=True)
    assert spans(kill)["after kill"] == (12.0, 40.0)
    found = spans(kill, AppliedFault("cut", 20.0, 20.0, 30.0))
    assert found["after kill"] == (12.0, 20.0)
    assert "during kill" not in found


def test_a_fault_that_was_interrupted_before_its_heal_lasts_to_the_end() -> None:
    found = spans(AppliedFault("outage", 12.0, 12.0))
    assert found["during outage"] == (12.0, 40.0)
    assert "after outage" not in found


def test_the_phases_of_faults_that_came_together_begin_together_and_do_not_end_each_other() -> None:
    cut, kill = AppliedFault("cut", 12.0, 12.003, 25.0), AppliedFault("kill", 12.0, 12.028, instant=True)
    crash = AppliedFault("crash", 25.0, 25.01, 30.0)
    found = spans(kill, cut, crash)
    assert found["steady"] == (5.0, 12.003)
    assert found["during cut"] == (12.003, 25.0)
    assert found["after kill"] == (12.003, 25.01)
    assert found["after cut"] == (25.0, 40.0)
    assert found["during crash"] == (25.01, 30.0)
