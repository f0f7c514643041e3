"""Several masters that survive less than they could, or elect leaders for no reason."""

from __future__ import annotations

from collections import Counter
from typing import Final

from testbed.documents.problems import Path
from testbed.documents.quantities import DURATION
from testbed.objects.places import Topology
from testbed.scenario.checks.control_plane import farthest_masters
from testbed.scenario.checks.findings import Findings
from testbed.scenario.models.cluster import ControlPlaneModel

ROUND_TRIPS = 10
"""In an election time-out, at least, with one for a heartbeat: etcd, "Tuning"."""
_HERE: Final[Path] = ("spec", "controlPlane")


def warn_of_masters(control_plane: ControlPlaneModel, topology: Topology, findings: Findings) -> None:
    """Expects complete ones."""
    masters = control_plane.replicas
    if masters == 1:
        return
    (zone, there), *_ = Counter(control_plane.zones or ()).most_common(1)
    zones = {node.locality.zone for node in topology.nodes}
    if there > (masters - 1) // 2 and len(set(control_plane.zones or ())) < min(masters, len(zones)):
        message = f"{there} of {masters} masters are in {zone}, and when it is lost nobody leads"
        findings.warn((*_HERE, "zones"), f"{message}; spread them over the {len(zones)} zones")
    rtt_s, one, other = farthest_masters(topology)
    timeout_s = control_plane.timings.election_timeout or 0.0
    if timeout_s < ROUND_TRIPS * rtt_s:
        message = (
            f"electionTimeout, {DURATION.format(timeout_s)}, is less than {ROUND_TRIPS} round trips between {one} and"
        )
        why = f"{other} of {DURATION.format(rtt_s)}: a leader that is well may be voted out"
        findings.warn((*_HERE, "timings", "electionTimeout"), f"{message} {why}; etcd advises as many at least")
