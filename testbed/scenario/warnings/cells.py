"""Cells that do not do what they were declared for."""

from __future__ import annotations

from testbed.control.mesh.locality import locality_rule
from testbed.documents.problems import Path
from testbed.objects.cells import PartitionMap
from testbed.objects.mesh import DestinationRule, TrafficPolicy
from testbed.scenario.cells import cities_of
from testbed.scenario.checks.findings import Findings
from testbed.scenario.models.cells import CellsModel
from testbed.scenario.models.experiment import ScenarioModel
from testbed.scenario.values import Scenario

_CELLS: Path = ("spec", "cells")


def warn_of_cells(model: ScenarioModel, scenario: Scenario, findings: Findings) -> None:
    cells = model.spec.cells
    if cells is None:
        return
    (cell_map,) = scenario.cluster.of(PartitionMap)
    owners = set(cell_map.owners)
    if cells.entry == "directed" and model.spec.load.locustfile is not None:
        message = "its users ask no router: they enter by the nearest gateway, which computes the owner"
        findings.warn(("spec", "load", "locustfile"), message)
    if cells.misdirected == "refuse" and cell_map.first_hit == "nearest" and len(owners) > 1:
        message = "refuses first hits, too: the nearest cell of a client without a cookie seldom owns its partition"
        findings.warn((*_CELLS, "misdirected"), f"{message}; with firstHit: owner the gateway finds it")
    if cell_map.first_hit == "nearest" and len(owners) > 1:
        _warn_of_far_first_hits(model, scenario, findings)
    _warn_of_groups(cells, findings)
    of_cities = [name for name, service in model.spec.services.items() if service.class_ == "perCity"]
    if of_cities and len(cities_of(model.spec)) == 1:
        message = "there is one city only (without `cells.cities` each region is one), so perCity is as global"
        findings.warn(("spec", "services", of_cities[0], "class"), message)


def _warn_of_far_first_hits(model: ScenarioModel, scenario: Scenario, findings: Findings) -> None:
    """Gateways know no other nearness than that of the service's own locality rules."""
    rules = {rule.host: rule.traffic_policy for rule in scenario.cluster.of(DestinationRule)}
    entered = {route.service for route in model.spec.gateway.routes}
    for service in scenario.cluster.services:
        sharded = service.service_class == "sharded" and service.name in entered
        policy = rules.get(service.name, TrafficPolicy())
        rule = locality_rule(service, policy)
        if sharded and not (rule.setting.enabled and (rule.failover or rule.setting.distribute)):
            message = "first hits go to all cells alike, not to the nearest: nothing makes gateways prefer a zone"
            findings.warn(("spec", "services", service.name), f"{message}; write trafficDistribution", at_key=True)


def _warn_of_groups(cells: CellsModel, findings: Findings) -> None:
    for name, cell in cells.cells.items():
        if len(cell.groups) == 1:
            message = "one group takes everything: there is nothing to switch to"
            findings.warn((*_CELLS, "cells", name, "groups"), message, at_key=True)
