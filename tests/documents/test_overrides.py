"""--set path=value."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


def test_an_empty_value_takes_a_whole_item_away_and_later_ones_move_up() -> None:
    more = "spec.faults=[{name: a, at: 12s, for: 1s, crash: {zone: east-a}}, {name: b, at: 14s, kill: {service: web}}]"
    left = load(more, "spec.expect=", "spec.faults[a]=", "spec.faults[0].at=20s")
    assert [(fault.name, fault.at_s) for fault in left.faults] == [("b", 20.0)]
    assert load("spec.faults[lose-east-a]=", "spec.expect[2]=").faults == ()


def test_a_key_of_the_users_own_is_taken_away_with_all_below_it() -> None:
    scenario = load("spec.services.orders=", "spec.services.web.workload.calls=")
    assert [deployment.name for deployment in scenario.cluster.deployments if deployment.name == "orders"] == []


def test_a_key_that_is_not_written_can_be_taken_away() -> None:
    assert load("spec.load.timeout=").load.timeout_s == 5.0


def test_a_star_means_all_items_of_a_list_or_all_keys_of_a_mapping() -> None:
    scenario = load("spec.load.sources[*].rate=20/s", "spec.services[*].replicas=1")
    assert [source.rate_per_s for source in scenario.load.sources] == [20.0, 20.0, 20.0]
    replicas = {each.name: each.replicas for each in scenario.cluster.deployments}
    assert (replicas["web"], replicas["orders"]) == (1, 1)
    assert load("spec.faults[*]=", "spec.expect=").faults == ()


def test_what_a_star_sets_can_be_changed_for_one_of_them_alone() -> None:
    scenario = load("spec.services[*].workload={work: 3ms}", "spec.services.web.workload.work=5ms")
    works = {each.name: getattr(each.template.workload, "work", None) for each in scenario.cluster.deployments}
    assert works["web"] != works["orders"]


def test_sources_go_by_their_zone_and_policies_by_their_service() -> None:
    scenario = load("spec.load.sources[east-c].rate=20/s", "spec.mesh.policies[*].timeout=1s")
    assert [source.rate_per_s for source in scenario.load.sources] == [195.0, 195.0, 20.0]
    more = "spec.mesh.policies=[{service: web, timeout: 1s}, {service: orders, timeout: 1s}]"
    with pytest.raises(ScenarioError, match="a duration needs a unit"):
        load(more, "spec.mesh.policies[orders].timeout=2")


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
            "spec.load.sources[west].rate=1/s",
            "--set spec.load.sources[west].rate=1/s: spec.load.sources has no item named 'west'; it has east-a, "
            "east-b, east-c",
        ),
        (
            "spec.expect[steady].atLeast=1%",
            "--set spec.expect[steady].atLeast=1%: spec.expect has 5 items without names, and so none named 'steady'",
        ),
        (
            "spec.faults[x]=",
            "--set spec.faults[x]=: spec.faults has no item named 'x'; it has lose-east-a",
        ),
        (
            "spec.laod=",
            "--set spec.laod=: spec.laod: unknown key; did you mean 'load'?",
        ),
        (
            "spec.gateway=",
            "--set spec.gateway=: spec.gateway: is required but not written",
        ),
        (
            "spec.load.requests[*].path=/",
            "--set spec.load.requests[*].path=/: spec.load.requests is nothing: there is nothing that [*] could be",
        ),
        (
            "spec.load.duration[*]=1s",
            "--set spec.load.duration[*]=1s: spec.load.duration is '40s': there is nothing that [*] could be",
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


def test_two_items_of_one_name_have_to_be_told_apart() -> None:
    two = "spec.load.sources=[{zone: east-a, rate: 1/s}, {zone: east-a, users: 1}, {zone: east-b, rate: 1/s}]"
    assert problems(two, "spec.load.sources[east-a].rate=2/s") == [
        "--set spec.load.sources[east-a].rate=2/s: spec.load.sources has 2 items named 'east-a'; write 0 or 1 or *"
    ]


def test_what_is_wrong_behind_an_item_that_was_taken_away_is_shown_where_it_is_written(tmp_path: Path) -> None:
    file = tmp_path / "two.yaml"
    text = ZONE_OUTAGE.read_text().replace(
        "duration: 40s", "duration: 40s\n    requests: [{path: /a},\n      {path: b}]"
    )
    file.write_text(text)
    line = next(number for number, text in enumerate(text.splitlines(), 1) if "{path: b}" in text)
    with pytest.raises(ScenarioError) as caught:
        load_scenario(file, ["spec.load.requests[0]="])
    assert str(caught.value).startswith(f"{file}:{line}:14: spec.load.requests[0].path: must be a path")


_parts = st.sampled_from(["spec", "load", "faults", "sources", "mesh", "policies", "expect", "x", '"a.b"'])
_items = st.sampled_from(["", "[*]", "[0]", "[2]", "[east-a]", "[x]"])
_steps = st.lists(st.tuples(_parts, _items).map("".join), min_size=1, max_size=4).map(".".join)
_values = st.sampled_from(["", "1", "[]", "{}", "[{name: x}, 1]", "{zone: x}", "20/s", "}", "~"]) | st.text(max_size=5)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(_steps, _values).map("=".join) | st.text(max_size=12), min_size=1, max_size=4))
def test_any_overrides_are_a_scenario_or_problems(overrides: list[str]) -> None:
    with suppress(ScenarioError):
        load(*overrides)


def test_problems_of_overrides_come_after_those_of_the_file_and_all_at_once() -> None:
    found = problems("spec.load.duration=13s", "spec.controlPlane.zone=west", "nonsense")
    assert [text.split(": ")[0].split("/")[-1] for text in found] == [
        "zone-outage.yaml:56:41",
        "--set nonsense",
        "--set spec.controlPlane.zone=west",
    ]
