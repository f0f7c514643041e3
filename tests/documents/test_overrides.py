"""--set path=value."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.objects.mesh import DestinationRule
from testbed.scenario import Scenario, ScenarioError, load_scenario

ZONE_OUTAGE = Path(__file__).parents[2] / "scenarios" / "zone-outage.yaml"


def load(*overrides: str, seed: int | None = None) -> Scenario:
    return load_scenario(ZONE_OUTAGE, overrides, seed)


def problems(*overrides: str) -> list[str]:
    with pytest.raises(ScenarioError) as caught:
        load(*overrides)
    return [str(problem) for problem in caught.value.problems]


def test_a_key_deep_in_a_list_is_set_and_the_mappings_that_lead_there_are_made() -> None:
    path = "spec.mesh.policies[0].trafficPolicy.loadBalancer.localityLbSetting.enabled"
    assert not load(f"{path}=false").cluster.of(DestinationRule)[0].traffic_policy.locality.enabled


def test_a_list_item_is_found_by_its_name() -> None:
    assert load("spec.faults[lose-east-a].at=20s").faults[0].at_s == 20.0


def test_a_value_is_yaml() -> None:
    scenario = load("spec.load.sources=[{zone: east-b, users: 3}]")
    assert [(s.zone, s.users, s.think_time_s) for s in scenario.load.sources] == [("east-b", 3, 1.0)]


def test_a_quoted_part_may_hold_dots() -> None:
    path = 'spec.services.web.workload={command: ["true"]}'
    scenario = load(path, 'spec.services.web.workload.env."a.b"=c')
    assert getattr(scenario.cluster.deployments[0].template.workload, "env", None) == (("a.b", "c"),)


def test_later_overrides_win() -> None:
    assert load("spec.load.duration=60s", "spec.load.duration=70s").load.duration_s == 70.0


def test_an_empty_value_takes_the_key_away() -> None:
    assert load("spec.load.warmup=", "spec.load.duration=50s").load.warmup_s == 5.0


def test_the_seed_argument_wins_over_the_file_and_seeds_the_work_as_well() -> None:
    scenario = load(seed=7)
    assert scenario.seed == 7
    assert getattr(scenario.cluster.deployments[0].template.workload, "work").seed == 7  # noqa: B009


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("nonsense", "--set nonsense: must be path=value, for example spec.load.duration=60s"),
        ("=5", "--set =5: must be path=value, for example spec.load.duration=60s"),
        ("spec..x=5", "--set spec..x=5: must be path=value, for example spec.load.duration=60s"),
        (
            "spec.faults[lose-west].at=1s",
            "--set spec.faults[lose-west].at=1s: spec.faults has no item named 'lose-west'; it has lose-east-a",
        ),
        (
            "spec.faults[3].at=1s",
            "--set spec.faults[3].at=1s: spec.faults has 1 items, counted from 0, and so none at 3",
        ),
        (
            "spec.load.duration.x=1s",
            "--set spec.load.duration.x=1s: spec.load.duration is '40s' and has no keys",
        ),
        (
            "spec.load.duration=60",
            "--set spec.load.duration=60: spec.load.duration: a duration needs a unit: write 60ms or 60s",
        ),
        (
            "spec.services.orders.workload.responseSize=1.5B",
            "--set spec.services.orders.workload.responseSize=1.5B: spec.services.orders.workload.responseSize: "
            "must be whole bytes, not 1.5B",
        ),
        (
            "spec.laod.duration=60s",
            "--set spec.laod.duration=60s: spec.laod: unknown key; did you mean 'load'?",
        ),
        (
            "spec.load.duration=[",
            "--set spec.load.duration=[: spec.load.duration: value is not valid YAML: while parsing a flow node "
            "expected the node content, but found '<stream end>'",
        ),
    ],
)
def test_an_override_that_does_not_fit_is_reported_as_itself(assignment: str, message: str) -> None:
    assert problems(assignment) == [message]


def test_problems_of_overrides_come_after_those_of_the_file_and_all_at_once() -> None:
    found = problems("spec.load.duration=13s", "spec.controlPlane.zone=west", "nonsense")
    assert [text.split(": ")[0].split("/")[-1] for text in found] == [
        "zone-outage.yaml:56:41",
        "--set nonsense",
        "--set spec.controlPlane.zone=west",
    ]
