"""Which endpoints a caller prefers: Istio's locality load balancing.

Owns priorities and locality weights of the endpoints of one service as one caller sees them. How Envoy spreads
requests over them is Envoy's; the form in which it learns them is `xds`.

Source of every rule: Istio 1.32, pilot/pkg/networking/core/loadbalancer/loadbalancer.go.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from testbed.objects.core import Endpoint, Node, Service
from testbed.objects.mesh import LocalityLoadBalancing, TrafficPolicy
from testbed.objects.places import Locality

REGION: Final = "topology.kubernetes.io/region"
ZONE: Final = "topology.kubernetes.io/zone"
SUBZONE: Final = "topology.istio.io/subzone"
HOSTNAME: Final = "kubernetes.io/hostname"
NETWORK: Final = "topology.istio.io/network"

_PREFER_SAME_ZONE: Final = (NETWORK, REGION, ZONE)
_PREFER_SAME_NODE: Final = (NETWORK, REGION, ZONE, SUBZONE, HOSTNAME)


@dataclass(frozen=True, slots=True)
class LocalityEndpoints:
    """Endpoints of one locality that share a priority (0 is tried first) and the weight of the locality in it."""

    locality: Locality
    priority: int
    weight: int
    endpoints: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True)
class LocalityRule:
    """What holds for the calls to one service. `failover` tells whether priorities are allowed to differ."""

    setting: LocalityLoadBalancing
    failover: bool

    @property
    def weighted(self) -> bool:
        """Whether Envoy must share a priority out by locality weight.

        Source: Istio, cluster_traffic_policy.go, applyLocalityLoadBalancer.
        """
        prioritised = self.failover and bool(self.setting.failover or self.setting.failover_priority)
        return self.setting.enabled and bool(prioritised or self.setting.distribute)


def locality_rule(service: Service, policy: TrafficPolicy) -> LocalityRule:
    """The rule for calls to `service`.

    A localityLbSetting, whatever it says, wins whole over the Service's trafficDistribution. That needs no outlier
    detection; failover by localityLbSetting does, since without it Envoy never learns that a priority is down.
    """
    if policy.locality is None and service.traffic_distribution is not None:
        labels = _PREFER_SAME_ZONE if service.traffic_distribution == "PreferSameZone" else _PREFER_SAME_NODE
        return LocalityRule(LocalityLoadBalancing(failover_priority=labels), failover=True)
    return LocalityRule(policy.locality or LocalityLoadBalancing(), failover=policy.outlier_detection is not None)


def prioritised(endpoints: Sequence[Endpoint], caller: Node, rule: LocalityRule) -> tuple[LocalityEndpoints, ...]:
    """Groups of equal priority and locality, closest first; priorities run from 0 without gaps.

    Every endpoint is in exactly one group, unless `distribute` names no share for its locality: then it is in none.
    """
    setting = rule.setting
    if setting.enabled:
        if setting.distribute:
            return _distributed(_grouped(endpoints, lambda _: 0), caller.locality, setting)
        if rule.failover:
            return _grouped(endpoints, lambda endpoint: _priority(endpoint, caller, setting))
    return _grouped(endpoints, lambda _: 0)


def _grouped(endpoints: Sequence[Endpoint], priority_of: Callable[[Endpoint], int]) -> tuple[LocalityEndpoints, ...]:
    groups: dict[tuple[int, str, str, str], list[Endpoint]] = {}
    for endpoint in endpoints:
        at = endpoint.locality
        groups.setdefault((priority_of(endpoint), at.region, at.zone, at.subzone), []).append(endpoint)
    compact = {priority: index for index, priority in enumerate(sorted({key[0] for key in groups}))}
    return tuple(
        LocalityEndpoints(Locality(*key[1:]), compact[key[0]], len(members), tuple(members))
        for key, members in sorted(groups.items(), key=lambda item: item[0])
    )


def _priority(endpoint: Endpoint, caller: Node, setting: LocalityLoadBalancing) -> int:
    """By labels, by locality, or where both are asked for by locality among those that the labels leave equal."""
    if not setting.failover_priority:
        return _failover_priority(endpoint, caller.locality, setting)
    by_labels = _label_priority(endpoint, caller, setting.failover_priority)
    if not setting.failover:
        return by_labels
    return 5 * by_labels + _failover_priority(endpoint, caller.locality, setting)


def _failover_priority(endpoint: Endpoint, caller: Locality, setting: LocalityLoadBalancing) -> int:
    """0 same sub-zone, 1 same zone, 2 same region, 3 other or the `failover` region, 4 other than that region."""
    at = endpoint.locality
    if at.region == caller.region:
        if at.zone != caller.zone:
            return 2
        return 0 if at.subzone == caller.subzone else 1
    takes_over = dict(reversed(setting.failover)).get(caller.region, at.region)
    return 3 if at.region == takes_over else 4


def _label_priority(endpoint: Endpoint, caller: Node, labels: Sequence[str]) -> int:
    """With N labels and the first mismatch at index j: N - j; all match: 0. `label=value` asks for that value."""
    caller_labels = _labels(caller.name, caller.locality)
    endpoint_labels = _labels(endpoint.node, endpoint.locality)
    for index, label in enumerate(labels):
        key, has_value, value = label.partition("=")
        wanted = value if has_value else caller_labels.get(key, "")
        if endpoint_labels.get(key, "") != wanted:
            return len(labels) - index
    return 0


def _labels(node: str, locality: Locality) -> dict[str, str]:
    """The topology labels of whatever runs on a node. All nodes are in one network."""
    return {
        REGION: locality.region,
        ZONE: locality.zone,
        SUBZONE: locality.subzone,
        HOSTNAME: node,
        NETWORK: "",
    }


def _distributed(
    groups: tuple[LocalityEndpoints, ...], caller: Locality, setting: LocalityLoadBalancing
) -> tuple[LocalityEndpoints, ...]:
    """Weights by the first rule for the caller's locality: ceil(original x share / sum of originals).

    A locality that no share names has no endpoints for this caller; where no rule holds, nothing changes.
    """
    rule = next((rule for rule in setting.distribute if matches(rule.source, caller)), None)
    if rule is None:
        return groups
    weights: dict[Locality, int] = {}
    for pattern, share in rule.to:
        named = [group for group in groups if group.locality not in weights and matches(pattern, group.locality)]
        total = sum(group.weight for group in named)
        weights.update((group.locality, -(-group.weight * share // total)) for group in named)
    return tuple(
        LocalityEndpoints(group.locality, group.priority, weights[group.locality], group.endpoints)
        for group in groups
        if weights.get(group.locality, 0) > 0
    )


def matches(pattern: str, locality: Locality) -> bool:
    """`region/zone/subzone`; a part that is `*` or missing matches anything. Source: Istio, util.LocalityMatch."""
    region, zone, subzone, *_ = [*pattern.split("/"), "", ""]
    return (
        region in ("*", locality.region) and zone in ("*", "", locality.zone) and subzone in ("*", "", locality.subzone)
    )
