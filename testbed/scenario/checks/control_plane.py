"""Checks of the control plane: where its masters are, and timings that work in one order only."""

from __future__ import annotations

from itertools import combinations
from typing import Final

from testbed.documents.problems import Path
from testbed.documents.quantities import DURATION
from testbed.objects.places import Topology
from testbed.scenario.checks.findings import Findings
from testbed.scenario.convert import topology_of
from testbed.scenario.defaults import complete_control_plane, complete_topology
from testbed.scenario.models.cluster import ControlPlaneModel, TimingsModel, TopologyModel

HERE: Final[Path] = ("spec", "controlPlane")
JITTER_FACTOR = 1.2
"""client-go, tools/leaderelection: who tries to get the Lease looks again after up to so many retry periods more."""


def check_control_plane(control_plane: ControlPlaneModel, topology: TopologyModel, findings: Findings) -> None:
    _check_places(control_plane, findings)
    if not findings.is_whole("spec", "topology"):
        return
    complete = complete_control_plane(control_plane, topology)
    _check_timings(control_plane.timings, complete.timings, control_plane.replicas, findings)
    known = {name for region in topology.regions.values() for name in region.zones}
    if control_plane.replicas > 1 and known.issuperset(complete.zones or ()):
        _check_election(complete, topology, findings)


def _check_places(control_plane: ControlPlaneModel, findings: Findings) -> None:
    replicas, zones = control_plane.replicas, findings.known("zone")
    if control_plane.zone is not None:
        findings.reference((*HERE, "zone"), "zone", control_plane.zone, zones)
        if replicas > 1:
            message = f"is of the only master, and there are {replicas}; write `zones`, one for each of them"
            findings.report((*HERE, "zone"), message, at_key=True)
    for index, zone in enumerate(control_plane.zones or ()):
        findings.reference((*HERE, "zones", index), "zone", zone, zones)
    if control_plane.zones is None or not findings.is_whole(*HERE, "replicas"):
        return
    if replicas == 1:
        findings.report((*HERE, "zones"), "are of several masters; write `replicas: 3` or `zone`", at_key=True)
    elif len(control_plane.zones) != replicas and findings.is_whole(*HERE, "zones"):
        message = f"there are {replicas} masters, and {len(control_plane.zones)} zones: write one for each of them"
        findings.report((*HERE, "zones"), message)


def _check_timings(written: TimingsModel, timings: TimingsModel, replicas: int, findings: Findings) -> None:
    _check_order(written, timings, "lease_renew", "lease_grace", "or nodes turn Unknown between two renewals", findings)
    duration_s, timeout_s = timings.leader_elect_lease_duration or 0.0, timings.election_timeout or 0.0
    if replicas == 1 or duration_s < timeout_s:
        return  # no such Lease is kept
    why = "or another takes the Lease while its holder still runs controllers"
    _check_order(written, timings, "leader_elect_renew_deadline", "leader_elect_lease_duration", why, findings)
    why = "or a single renewal that is late stops the controllers"
    _check_order(
        written, timings, "leader_elect_retry_period", "leader_elect_renew_deadline", why, findings, JITTER_FACTOR
    )


def _check_order(
    written: TimingsModel, timings: TimingsModel, less: str, more: str, why: str, findings: Findings, factor: float = 1
) -> None:
    """`timings` are those written, with defaults. What is written is to be changed."""
    less_s, more_s = getattr(timings, less), getattr(timings, more)
    if factor * less_s < more_s:
        return
    keys = {name: TimingsModel.model_fields[name].alias or name for name in (less, more)}
    if getattr(written, more) is not None:
        times = "" if factor == 1 else f"{factor:g} times "
        wrong, right = more, f"must be more than {times}{keys[less]}, which is {DURATION.format(less_s)}"
    else:
        times = "" if factor == 1 else f"{factor:g} times it "
        wrong, right = less, f"{times}must be less than {keys[more]}, which is {DURATION.format(more_s)}"
    findings.report((*HERE, "timings", keys[wrong]), f"{right}, {why}")


def _check_election(control_plane: ControlPlaneModel, topology: TopologyModel, findings: Findings) -> None:
    """Expects complete ones. A vote takes a round trip."""
    rtt_s, one, other = farthest_masters(topology_of(complete_topology(topology), control_plane))
    timeout_s = control_plane.timings.election_timeout or 0.0
    if timeout_s <= rtt_s:
        message = (
            f"electionTimeout, {DURATION.format(timeout_s)}, must be more than the round trip between {one} and {other}"
        )
        why = f"{DURATION.format(rtt_s)}, or nobody is ever elected; etcd advises ten times that"
        findings.report((*HERE, "timings", "electionTimeout"), f"{message}, {why}")


def farthest_masters(topology: Topology) -> tuple[float, str, str]:
    """The longest round trip between two masters, in seconds, and between which."""
    return max(
        (2 * topology.quality(one, other).delay_s, one, other) for one, other in combinations(topology.masters, 2)
    )
