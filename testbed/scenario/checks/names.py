"""Who is called what in a scenario, whatever is wrong with it: what references are checked against."""

from __future__ import annotations

from testbed.objects.places import clients_of, master_names
from testbed.objects.workloads import NODE_PROXY, gateway_of, router_of
from testbed.scenario.cells import Placement, placements, router_zones
from testbed.scenario.checks.cluster import node_names, zones_of
from testbed.scenario.checks.findings import Findings
from testbed.scenario.models.experiment import ScenarioModel
from testbed.scenario.wording import listed


def introduce_names(model: ScenarioModel, findings: Findings) -> None:
    """Make all names known that are written, valid or not, and the nodes' of zones that are valid."""
    regions = ("spec", "topology", "regions")
    zones = {region: findings.names(*regions, region, "zones") for region in findings.names(*regions)}
    nodes = {name: node_names(name, zone) for _, name, zone in zones_of(model)}
    with_nodes = {zone: f", with the nodes {listed(names)}" for zone, names in nodes.items()}
    findings.introduce("region", {name: f"a region, with the zones {listed(within)}" for name, within in zones.items()})
    findings.introduce(
        "zone", {name: f"a zone{with_nodes.get(name, '')}" for within in zones.values() for name in within}
    )
    findings.introduce("node", {name: f"a node of zone {zone}" for zone, names in nodes.items() for name in names})
    nodes_with_proxy = findings.known("node") if model.spec.mesh.mode == "node" else ()
    findings.introduce("service", dict.fromkeys(findings.names("spec", "services"), "a service"))
    findings.introduce("cell", dict.fromkeys(findings.names("spec", "cells", "cells"), "a cell"))
    clients = {clients_of(zone): f"the clients of zone {zone}" for zone in findings.known("zone")}
    places = dict.fromkeys((*findings.known("zone"), *findings.known("node")), "a zone or node")
    names = master_names(model.spec.control_plane.replicas)
    masters = dict.fromkeys(names, "the control plane" if len(names) == 1 else "a master")
    findings.introduce("zone or node", {**places, **clients, **masters})
    findings.introduce("master", masters)
    gateways = [*map(gateway_of, findings.known("zone"))]
    routers = [*map(router_of, router_zones(model.spec))]
    node_proxies = [f"{NODE_PROXY}-{node}" for node in nodes_with_proxy]
    of_services = [
        each.deployment
        for name in findings.known("service")
        for each in (
            placements(name, model.spec.services[name], model.spec)
            if name in model.spec.services
            else (Placement(name, (), 1),)
        )
    ]
    deployments = (*of_services, *gateways, *routers, *node_proxies)
    findings.introduce("deployment", dict.fromkeys(deployments, "a Deployment"))
    faults = dict.fromkeys(findings.names("spec", "faults"), "a fault")
    operations = dict.fromkeys(findings.names("spec", "operations"), "an operation")
    findings.introduce("fault or operation", faults | operations)
