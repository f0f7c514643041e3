"""What is doubtful about a scenario that could be run: it would pass every check, and yet not show what is wanted."""

from __future__ import annotations

from collections.abc import Sequence

from testbed.objects.core import Pod
from testbed.scenario.checks.findings import Findings
from testbed.scenario.models.experiment import ScenarioModel
from testbed.scenario.values import Scenario
from testbed.scenario.warnings.cells import warn_of_cells
from testbed.scenario.warnings.faults import warn_of_overlaps, warn_of_warmup
from testbed.scenario.warnings.load import warn_of_paths, warn_of_work
from testbed.scenario.warnings.masters import warn_of_masters
from testbed.scenario.warnings.mesh import warn_of_policies
from testbed.scenario.warnings.recovery import warn_of_recovery


def warn(model: ScenarioModel, scenario: Scenario, pods: Sequence[Pod], findings: Findings) -> None:
    """Note every doubt. Expects the completed model of a scenario without errors, and its pods with their nodes."""
    if model.spec.mesh.mode != "none":
        warn_of_policies(model, scenario.topology, pods, findings)
    warn_of_masters(model.spec.control_plane, scenario.topology, findings)
    warn_of_cells(model, scenario, findings)
    warn_of_paths(model, findings)
    warn_of_work(model, findings)
    warn_of_warmup(model, findings)
    warn_of_recovery(model, findings)
    warn_of_overlaps(scenario, pods, findings)
