"""Whether every pod of a cluster finds a node, as the scheduler itself decides it."""

from __future__ import annotations

from collections.abc import Sequence

from testbed.documents.problems import Path
from testbed.objects.core import Pod
from testbed.objects.workloads import gateway_of, router_of
from testbed.scenario.cells import placements
from testbed.scenario.checks.cluster import zones_of
from testbed.scenario.checks.findings import Findings
from testbed.scenario.models.experiment import ScenarioModel


def check_scheduling(model: ScenarioModel, pods: Sequence[Pod], findings: Findings) -> None:
    """Report each Deployment with pods that find no node. Expects all pods of the scenario, none of them started."""
    reasons: dict[str, list[str]] = {}
    for pod in pods:
        if pod.node is None:
            reasons.setdefault(pod.deployment, []).append(pod.reason)
    services = {
        each.deployment: name
        for name, service in model.spec.services.items()
        for each in placements(name, service, model.spec)
    }
    own: dict[str, tuple[str, Path]] = {}
    for location, zone, _ in zones_of(model):
        own |= {gateway_of(zone): ("gateway", location), router_of(zone): ("router", location)}
    for deployment, why in reasons.items():
        if deployment in own:
            what, at = own[deployment]
            message = f"its {what} finds no node: {why[0]} Give it a node more or a larger `capacityPods`"
            findings.report(at, message, at_key=True)
        else:
            # A node proxy is the first pod of its node, which holds one at least.
            service = services[deployment]
            replicas = model.spec.services[service].replicas
            pods_of = f"its {replicas} pods" if deployment == service else f"the {replicas} pods of {deployment}"
            message = f"{len(why)} of {pods_of} find no node: {why[0]}"
            findings.report(("spec", "services", service, "replicas"), message)
