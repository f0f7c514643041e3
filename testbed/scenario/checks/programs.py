"""Whether the programs that a scenario runs in its pods are there, on the machine that asks."""

from __future__ import annotations

from testbed.documents.problems import Path
from testbed.scenario.checks.executables import why_not_startable
from testbed.scenario.checks.findings import Findings
from testbed.scenario.models.cluster import ProbeModel, ServiceModel
from testbed.scenario.models.experiment import ScenarioModel


def check_programs(model: ScenarioModel, findings: Findings) -> None:
    """Report commands of workloads and probes that cannot be started here."""
    for name, service in model.spec.services.items():
        here: Path = ("spec", "services", name)
        if service.workload.command is not None:
            _check_program((*here, "workload", "command"), service.workload.command, service, findings)
        for key, probe in (("readinessProbe", service.readiness_probe), ("livenessProbe", service.liveness_probe)):
            if isinstance(probe, ProbeModel) and probe.exec is not None:
                _check_program((*here, key, "exec", "command"), probe.exec.command, service, findings)


def _check_program(here: Path, command: list[str], service: ServiceModel, findings: Findings) -> None:
    reason = why_not_startable(command[0], service.workload.env.get("PATH"))
    if reason is not None:
        findings.report((*here, 0), f"{reason} on this machine")
