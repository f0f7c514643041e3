"""Checks of the way in: a router needs clients who ask it, and these something to ask about."""

from __future__ import annotations

from testbed.documents.problems import Path
from testbed.scenario.checks.cluster import zone_names
from testbed.scenario.checks.findings import Findings
from testbed.scenario.models.cells import CellsModel
from testbed.scenario.models.experiment import ScenarioModel

_CELLS: Path = ("spec", "cells")


def check_entry(model: ScenarioModel, cells: CellsModel, findings: Findings) -> None:
    if not findings.is_whole(*_CELLS, "entry"):
        return
    if cells.entry == "gateway":
        if cells.router is not None:
            message = "nobody asks it: clients do with entry: directed; write that, or remove it"
            findings.report((*_CELLS, "router"), message, at_key=True)
        return
    if cells.first_hit is not None:
        message = "there are no first hits with entry: directed, as the router names the owner; remove it"
        findings.report((*_CELLS, "firstHit"), message)
    if cells.router is not None:
        written: set[str] = set()
        for index, zone in enumerate(cells.router.zones or ()):
            here: Path = (*_CELLS, "router", "zones", index)
            findings.reference(here, "zone", zone, zone_names(findings))
            if zone in written:
                findings.report(here, f"zone {zone!r} is written twice")
            written.add(zone)
    load = model.spec.load
    if load.ids is None and load.operations is None and load.locustfile is None and findings.is_whole("spec", "load"):
        message = "clients have no ids to ask the router about; write `load.ids`"
        findings.report((*_CELLS, "entry"), message)
