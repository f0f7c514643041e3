"""Whether the programs that a scenario runs in its pods are there, on the machine that asks."""

from __future__ import annotations

import os
import shutil

from testbed.scenario.cluster_models import ProbeModel, ServiceModel
from testbed.scenario.findings import Findings
from testbed.scenario.models import ScenarioModel
from testbed.scenario.problems import Path


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
    program = command[0]
    search = service.workload.env.get("PATH", os.environ.get("PATH", os.defpath))
    if "$(" in program or "$(" in search:
        return  # known in the pod only
    if shutil.which(program, path=search) is not None:
        return
    if "/" not in program:
        reason = f"there is no program {program!r} on this machine (PATH is searched)"
    elif os.path.exists(program):
        reason = f"{program!r} is no program that can be executed"
    else:
        reason = f"there is no file {program!r} on this machine"
    findings.report((*here, 0), reason)
