"""Mesh policies that do not do what they were written for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from testbed.control.mesh.locality import matches
from testbed.documents.problems import Path
from testbed.objects.core import Pod
from testbed.objects.places import Locality, Topology
from testbed.scenario.checks.findings import Findings
from testbed.scenario.models.experiment import ScenarioModel
from testbed.scenario.models.traffic import LocalityLbModel, OutlierDetectionModel, PolicyModel
from testbed.scenario.wording import listed

ENVOYS_MAX_EJECTION_PERCENT = 10

Endpoints = Mapping[str, Counter[Locality]]
"""How many endpoints each service has in which locality when all is well."""


def warn_of_policies(model: ScenarioModel, topology: Topology, pods: Sequence[Pod], findings: Findings) -> None:
    endpoints: dict[str, Counter[Locality]] = {service: Counter() for service in model.spec.services}
    deployments: dict[str, Counter[str]] = {service: Counter() for service in model.spec.services}
    for pod in pods:
        if pod.node is not None and pod.template.role == "service":
            endpoints[pod.template.service][topology.place(pod.node).locality] += 1
            deployments[pod.template.service][pod.deployment] += 1
    # Calls to a service in cells choose among those of one cell.
    fewest = {service: min(counts.values(), default=0) for service, counts in deployments.items()}
    of_their_own = {policy.service for policy in model.spec.mesh.policies}
    others = [service for service in endpoints if service not in of_their_own]
    for index, policy in enumerate(model.spec.mesh.policies):
        governed = others if policy.service == "*" else [policy.service]
        detection = policy.traffic_policy.outlier_detection
        if detection is not None:
            here: Path = ("spec", "mesh", "policies", index, "trafficPolicy", "outlierDetection")
            _warn_of_ejection(here, detection, {service: fewest[service] for service in governed}, findings)
        _warn_of_locality(index, policy, {service: endpoints[service] for service in governed}, findings)


def _warn_of_locality(index: int, policy: PolicyModel, endpoints: Endpoints, findings: Findings) -> None:
    here: Path = ("spec", "mesh", "policies", index, "trafficPolicy")
    rules = policy.traffic_policy
    setting = rules.load_balancer.locality_lb_setting
    if setting is None or not setting.enabled:
        return
    where = (*here, "loadBalancer", "localityLbSetting")
    if setting.distribute:
        _warn_of_shares(where, setting, endpoints, findings)
    elif rules.outlier_detection is None:
        message = "prefers no locality without `outlierDetection`, as in Istio: calls go to all endpoints alike"
        findings.warn(where, message, at_key=True)
    else:
        _warn_of_failover(where, setting, endpoints, findings)


def _warn_of_ejection(
    here: Path, detection: OutlierDetectionModel, totals: Mapping[str, int], findings: Findings
) -> None:
    """Envoy ejects an endpoint while (ejected + 1) / endpoints is at most the maximum (since 1.28, its PR 27909)."""
    if detection.consecutive_5xx_errors == 0 and not detection.consecutive_gateway_errors:
        findings.warn((*here, "consecutive5xxErrors"), "0 turns the only detector off: no endpoint is ever ejected")
        return
    percent = detection.max_ejection_percent or ENVOYS_MAX_EJECTION_PERCENT
    never = {service: total for service, total in totals.items() if 0 < total * percent < 100}
    if never:
        services = listed(f"{service} (of {total})" for service, total in never.items())
        enough = -(-100 // min(never.values()))
        findings.warn(
            (*here, "maxEjectionPercent"),
            f"{percent} % is less than one endpoint of {services}: none is ever ejected, and no call fails over to "
            f"another locality for its errors; write {enough} or more",
        )


def _warn_of_shares(here: Path, setting: LocalityLbModel, endpoints: Endpoints, findings: Findings) -> None:
    for index, share in enumerate(setting.distribute):
        item: Path = (*here, "distribute", index, "to")
        nowhere: list[str] = []
        single: list[str] = []
        for service, within in endpoints.items():
            named = [locality for locality in within if any(matches(pattern, locality) for pattern in share.to)]
            if within and not named:
                nowhere.append(service)
            elif len(named) == 1 and len(within) > 1:
                single.append(service)
        if nowhere:
            message = f"there is no endpoint of {listed(nowhere)} in these localities, and others get nothing"
            findings.warn(item, f"{message}: calls from {share.from_} fail", at_key=True)
        if single:
            message = f"has endpoints of {listed(single)} in one locality only, and others get nothing"
            findings.warn(item, f"{message}: when it fails, calls from {share.from_} have no fallback", at_key=True)


def _warn_of_failover(here: Path, setting: LocalityLbModel, endpoints: Endpoints, findings: Findings) -> None:
    for index, failover in enumerate(setting.failover):
        absent = [
            service
            for service, within in endpoints.items()
            if within and failover.to not in {locality.region for locality in within}
        ]
        if absent:
            message = f"there is no endpoint of {listed(absent)} in region {failover.to}, which could take over"
            findings.warn((*here, "failover", index, "to"), message)
