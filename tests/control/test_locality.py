"""Istio's locality load balancing: priorities, weights, and what needs outlier detection."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.control.mesh.locality import HOSTNAME, REGION, SUBZONE, ZONE, LocalityRule, locality_rule, prioritised
from testbed.objects.addresses import SocketAddress
from testbed.objects.core import Endpoint, Node, Service
from testbed.objects.mesh import LocalityDistribution, LocalityLoadBalancing, OutlierDetection, TrafficPolicy
from testbed.objects.places import Locality


def caller(region: str = "east", zone: str = "east-a", subzone: str = "", name: str = "caller") -> Node:
    return Node(name, Locality(region, zone, subzone))


def endpoint(pod: str, region: str, zone: str, subzone: str = "", node: str = "other") -> Endpoint:
    return Endpoint(pod, node, Locality(region, zone, subzone), SocketAddress("127.20.0.1", 15006))


EVERYWHERE = (
    endpoint("same-cell", "east", "east-a", "cell-1"),
    endpoint("same-zone", "east", "east-a", "cell-2"),
    endpoint("same-region", "east", "east-b"),
    endpoint("west", "west", "west-a"),
    endpoint("north", "north", "north-a"),
)


def priorities(endpoints: tuple[Endpoint, ...], node: Node, rule: LocalityRule) -> dict[str, int]:
    return {e.pod: group.priority for group in prioritised(endpoints, node, rule) for e in group.endpoints}


def weights(endpoints: tuple[Endpoint, ...], node: Node, rule: LocalityRule) -> dict[str, int]:
    return {e.pod: group.weight for group in prioritised(endpoints, node, rule) for e in group.endpoints}


def test_failover_prefers_cell_then_zone_then_region_then_any() -> None:
    rule = LocalityRule(LocalityLoadBalancing(), failover=True)
    assert priorities(EVERYWHERE, caller(subzone="cell-1"), rule) == {
        "same-cell": 0,
        "same-zone": 1,
        "same-region": 2,
        "west": 3,
        "north": 3,
    }


def test_a_failover_rule_puts_its_region_before_all_others() -> None:
    setting = LocalityLoadBalancing(failover=(("west", "east"), ("east", "north")))
    ranks = priorities(EVERYWHERE, caller(subzone="cell-1"), LocalityRule(setting, failover=True))
    assert (ranks["north"], ranks["west"]) == (3, 4)


def test_priorities_without_endpoints_leave_no_gap() -> None:
    rule = LocalityRule(LocalityLoadBalancing(failover=(("east", "north"),)), failover=True)
    assert priorities(EVERYWHERE[2:4], caller(), rule) == {"same-region": 0, "west": 1}


@pytest.mark.parametrize(
    "rule",
    [
        LocalityRule(LocalityLoadBalancing(), failover=False),
        LocalityRule(LocalityLoadBalancing(failover_priority=(ZONE,)), failover=False),
        LocalityRule(LocalityLoadBalancing(enabled=False, failover_priority=(ZONE,)), failover=True),
        LocalityRule(LocalityLoadBalancing(enabled=False, distribute=(LocalityDistribution("*", ()),)), failover=True),
    ],
    ids=["no outlier detection", "failoverPriority without it", "disabled failover", "disabled distribute"],
)
def test_all_localities_are_equal_when_failover_cannot_work(rule: LocalityRule) -> None:
    assert set(priorities(EVERYWHERE, caller(), rule).values()) == {0}
    assert not rule.weighted


def test_failover_priority_counts_from_the_first_label_that_differs() -> None:
    rule = LocalityRule(LocalityLoadBalancing(failover_priority=(REGION, ZONE, SUBZONE)), failover=True)
    assert priorities(EVERYWHERE, caller(subzone="cell-1"), rule) == {
        "same-cell": 0,
        "same-zone": 1,
        "same-region": 2,
        "west": 3,
        "north": 3,
    }


def test_failover_priority_with_a_value_asks_for_that_value_instead_of_the_callers() -> None:
    rule = LocalityRule(LocalityLoadBalancing(failover_priority=(f"{REGION}=west",)), failover=True)
    ranks = priorities(EVERYWHERE, caller(), rule)
    assert ranks == {"west": 0, "same-cell": 1, "same-zone": 1, "same-region": 1, "north": 1}


def test_an_unknown_label_is_the_same_everywhere() -> None:
    rule = LocalityRule(LocalityLoadBalancing(failover_priority=("version",)), failover=True)
    assert set(priorities(EVERYWHERE, caller(), rule).values()) == {0}


def test_one_locality_can_hold_two_priorities() -> None:
    endpoints = (endpoint("near", "east", "east-a", node="caller"), endpoint("far", "east", "east-a"))
    rule = LocalityRule(LocalityLoadBalancing(failover_priority=(ZONE, HOSTNAME)), failover=True)
    assert priorities(endpoints, caller(), rule) == {"near": 0, "far": 1}


def test_failover_orders_what_the_labels_of_failover_priority_leave_equal() -> None:
    setting = LocalityLoadBalancing(failover=(("east", "north"),), failover_priority=(HOSTNAME,))
    here = endpoint("here", "east", "east-a", "cell-2", node="caller")
    ranks = priorities((*EVERYWHERE, here), caller(subzone="cell-1"), LocalityRule(setting, failover=True))
    # 5 x (0 on the same node, else 1) + 0 to 4 by locality, without gaps.
    assert ranks == {"here": 0, "same-cell": 1, "same-zone": 2, "same-region": 3, "north": 4, "west": 5}


def test_distribute_divides_each_share_by_the_endpoints_it_names_and_drops_the_rest() -> None:
    setting = LocalityLoadBalancing(
        distribute=(
            LocalityDistribution("west/*", (("east/*", 100),)),
            LocalityDistribution("east/east-a/*", (("east/east-a/*", 70), ("west", 30))),
        )
    )
    # 70 over two localities of one endpoint each; 30 for the only one in west.
    assert weights(EVERYWHERE, caller(), LocalityRule(setting, failover=False)) == {
        "same-cell": 35,
        "same-zone": 35,
        "west": 30,
    }


def test_distribute_rounds_weights_up() -> None:
    endpoints = (*(endpoint(f"b{i}", "east", "east-b") for i in range(2)), endpoint("c", "east", "east-c"))
    setting = LocalityLoadBalancing(distribute=(LocalityDistribution("*", (("east", 100),)),))
    assert weights(endpoints, caller(), LocalityRule(setting, failover=True)) == {"b0": 67, "b1": 67, "c": 34}


def test_distribute_for_other_callers_changes_nothing() -> None:
    setting = LocalityLoadBalancing(distribute=(LocalityDistribution("west/*", (("west/*", 100),)),))
    assert len(weights(EVERYWHERE, caller(), LocalityRule(setting, failover=False))) == len(EVERYWHERE)


def test_prefer_same_zone_works_without_outlier_detection_and_ignores_cells() -> None:
    rule = locality_rule(Service("orders", traffic_distribution="PreferSameZone"), TrafficPolicy())
    assert rule.weighted
    assert priorities(EVERYWHERE, caller(subzone="cell-1"), rule) == {
        "same-cell": 0,
        "same-zone": 0,
        "same-region": 1,
        "west": 2,
        "north": 2,
    }


def test_prefer_same_node_puts_the_node_first() -> None:
    rule = locality_rule(Service("orders", traffic_distribution="PreferSameNode"), TrafficPolicy())
    endpoints = (*EVERYWHERE, endpoint("here", "east", "east-a", "cell-1", node="caller"))
    ranks = priorities(endpoints, caller(subzone="cell-1"), rule)
    assert ranks["here"] == 0
    assert ranks["same-cell"] == 1


def test_a_locality_setting_wins_over_the_traffic_distribution_of_the_service() -> None:
    policy = TrafficPolicy(locality=LocalityLoadBalancing(enabled=False), outlier_detection=OutlierDetection())
    rule = locality_rule(Service("orders", traffic_distribution="PreferSameZone"), policy)
    assert set(priorities(EVERYWHERE, caller(), rule).values()) == {0}


@pytest.mark.parametrize(("outliers", "ranks"), [(None, {0}), (OutlierDetection(), {0, 1, 2, 3})])
def test_a_locality_setting_that_says_no_more_than_enabled_wins_as_well(
    outliers: OutlierDetection | None, ranks: set[int]
) -> None:
    policy = TrafficPolicy(locality=LocalityLoadBalancing(enabled=True), outlier_detection=outliers)
    rule = locality_rule(Service("orders", traffic_distribution="PreferSameZone"), policy)
    assert not rule.weighted
    # The distribution has three: it does not look at cells.
    assert set(priorities(EVERYWHERE, caller(subzone="cell-1"), rule).values()) == ranks


# --- properties --------------------------------------------------------------------------------------------------

regions = st.sampled_from(["east", "west", "north"])
localities = st.builds(
    lambda region, zone, cell: Locality(region, f"{region}-{zone}", cell),
    regions,
    st.sampled_from("ab"),
    st.sampled_from(["", "cell-1"]),
)
endpoint_lists = st.lists(st.tuples(localities, st.sampled_from(["n1", "n2", "caller"])), max_size=12).map(
    lambda places: tuple(
        Endpoint(f"pod-{i}", node, locality, SocketAddress("127.20.0.1", i + 1))
        for i, (locality, node) in enumerate(places)
    )
)
settings_of_any_kind = st.builds(
    LocalityLoadBalancing,
    enabled=st.booleans(),
    failover=st.lists(st.tuples(regions, regions), max_size=2).map(tuple),
    failover_priority=st.lists(st.sampled_from([REGION, ZONE, SUBZONE, HOSTNAME, f"{REGION}=west"]), max_size=4).map(
        tuple
    ),
)
rules = st.builds(LocalityRule, settings_of_any_kind, failover=st.booleans())
callers = st.builds(lambda locality: Node("caller", locality), localities)


@given(endpoint_lists, callers, rules)
def test_priorities_run_from_zero_without_gaps(endpoints: tuple[Endpoint, ...], node: Node, rule: LocalityRule) -> None:
    found = {group.priority for group in prioritised(endpoints, node, rule)}
    assert found == set(range(len(found)))


@given(endpoint_lists, callers, rules)
def test_every_endpoint_is_in_exactly_one_group_of_its_locality(
    endpoints: tuple[Endpoint, ...], node: Node, rule: LocalityRule
) -> None:
    groups = prioritised(endpoints, node, rule)
    assert sorted(e.pod for group in groups for e in group.endpoints) == sorted(e.pod for e in endpoints)
    assert all(e.locality == group.locality for group in groups for e in group.endpoints)
    assert all(group.weight == len(group.endpoints) for group in groups)


@given(
    endpoint_lists, callers, st.lists(st.tuples(regions, st.integers(1, 100)), max_size=3, unique_by=lambda to: to[0])
)
def test_distribute_drops_exactly_the_localities_without_a_share(
    endpoints: tuple[Endpoint, ...], node: Node, to: list[tuple[str, int]]
) -> None:
    setting = LocalityLoadBalancing(distribute=(LocalityDistribution("*", tuple(to)),))
    groups = prioritised(endpoints, node, LocalityRule(setting, failover=True))
    named = [region for region, _ in to]
    kept = sorted(e.pod for e in endpoints if e.locality.region in named)
    assert sorted(e.pod for group in groups for e in group.endpoints) == kept
    assert all(group.weight >= 1 and group.priority == 0 for group in groups)


@given(endpoint_lists, callers, st.lists(st.tuples(regions, regions), max_size=2).map(tuple))
def test_a_closer_endpoint_never_has_a_higher_number(
    endpoints: tuple[Endpoint, ...], node: Node, failover: tuple[tuple[str, str], ...]
) -> None:
    def distance(e: Endpoint) -> int:
        here, there = node.locality, e.locality
        shared = [here.region == there.region, here.zone == there.zone, here.subzone == there.subzone]
        return 3 - next((i for i, same in enumerate(shared) if not same), 3)

    ranks = priorities(endpoints, node, LocalityRule(LocalityLoadBalancing(failover=failover), failover=True))
    for a in endpoints:
        for b in endpoints:
            if distance(a) < distance(b):
                assert ranks[a.pod] < ranks[b.pod]
