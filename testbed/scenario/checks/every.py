"""Checks that concern several values of a scenario, all of them: what does not exist, does not fit, or contradicts."""

from __future__ import annotations

from testbed.scenario.checks.cells import check_cells
from testbed.scenario.checks.cluster import check_calls, check_capacity, check_services, check_topology
from testbed.scenario.checks.control_plane import check_control_plane
from testbed.scenario.checks.experiment import check_expectations, check_faults
from testbed.scenario.checks.findings import Findings
from testbed.scenario.checks.locustfile import check_locustfile
from testbed.scenario.checks.names import introduce_names
from testbed.scenario.checks.operations import check_operations
from testbed.scenario.checks.protocols import check_protocols
from testbed.scenario.checks.traffic import check_load, check_mesh
from testbed.scenario.models.experiment import ScenarioModel


def check(model: ScenarioModel, findings: Findings) -> None:
    """Report everything that is wrong in a scenario whose single values are right."""
    introduce_names(model, findings)
    check_topology(model, findings)
    check_control_plane(model.spec.control_plane, model.spec.topology, findings)
    check_services(model, findings)
    check_protocols(model, findings)
    check_calls(model, findings)
    check_capacity(model, findings)
    check_cells(model, findings)
    check_mesh(model, findings)
    check_load(model, findings)
    check_locustfile(model, findings)
    check_faults(model, findings)
    check_expectations(model, findings)
    check_operations(model, findings)
