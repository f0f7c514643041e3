"""Checks of operations: what they name is there, they lie within the run, and the map allows them in their order."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from pydantic.alias_generators import to_snake

from testbed.control.cells.operations import OperationImpossible, planned
from testbed.control.cells.promotion import GroupSplit, moved_groups
from testbed.documents.problems import Path
from testbed.documents.quantities import DURATION
from testbed.scenario.cells import cities_of, partition_map, ranges
from testbed.scenario.checks.findings import Findings
from testbed.scenario.models.cells import CellsModel
from testbed.scenario.models.experiment import ScenarioModel, SpecModel
from testbed.scenario.models.operations import MoveModel, OperationModel
from testbed.scenario.operations import cells_switched, scheduled_operations
from testbed.scenario.stores import groups_of

KINDS = ("move", "failover", "evacuate", "popOut", "switch")


def check_operations(model: ScenarioModel, findings: Findings) -> None:
    spec, names = model.spec, {fault.name for fault in model.spec.faults}
    for index, operation in enumerate(spec.operations):
        here: Path = ("spec", "operations", index)
        if operation.name in names:
            message = f"there is a fault or an operation {operation.name!r} already; choose another name"
            findings.report((*here, "name"), message)
        names.add(operation.name)
        if spec.cells is None:
            if findings.is_whole("spec", "cells"):
                findings.report(here, "changes who owns which partitions, and there are none: no spec.cells")
            continue
        kinds = [kind for kind in KINDS if getattr(operation, to_snake(kind)) is not None]
        if len(kinds) != 1 and findings.is_whole(*here):
            found = f"but has {' and '.join(kinds)}" if kinds else "but has none"
            findings.report(here, f"must have exactly one of {', '.join(KINDS)}, {found}")
        for at, noun, name, known in _references(operation, spec, spec.cells):
            findings.reference((*here, *at), noun, name, known)
        if operation.move is not None:
            _check_partitions((*here, "move"), operation.move, spec.cells, findings)
        if operation.promote is not None:
            _check_promoted(here, operation, operation.promote, spec, findings)
        if operation.forbid_write is not None:
            _check_forbidden(here, operation, operation.forbid_write, spec, findings)
        elif operation.catch_up_within is not None and findings.is_whole(*here):
            findings.report((*here, "catchUpWithin"), "is of `forbidWrite`, and there is none; remove it", at_key=True)
        _check_kind(here, operation, spec.cells, findings)
        _check_steps(here, operation, findings)
        _check_time(here, operation, model, findings)
    if spec.operations and not findings.source.problems and findings.is_whole("spec"):
        _check_plan(spec, findings)


def _references(
    operation: OperationModel, spec: SpecModel, cells: CellsModel
) -> Iterator[tuple[Path, str, str, list[str]]]:
    names = list(cells.cells)
    if operation.move is not None:
        yield ("move", "to"), "cell", operation.move.to, names
    if operation.failover is not None:
        yield ("failover", "cell"), "cell", operation.failover.cell, names
    if operation.evacuate is not None:
        yield ("evacuate", "city"), "city", operation.evacuate.city, [city.name for city in cities_of(spec)]
    if operation.pop_out is not None:
        yield ("popOut", "cell"), "cell", operation.pop_out.cell, names
        yield ("popOut", "to"), "cell", operation.pop_out.to, names
    if operation.switch is not None:
        for index, cell in enumerate(operation.switch.cells or ()):
            yield ("switch", "cells", index), "cell", cell, names


def _check_partitions(here: Path, move: MoveModel, cells: CellsModel, findings: Findings) -> None:
    for index, first, last in ranges(move.partitions):
        if last < first:
            findings.report((*here, "partitions", index), f"ends before it begins; write {last}-{first}")
        elif last >= cells.partitions:
            there = f"partitions are 0 to {cells.partitions - 1}"
            findings.report((*here, "partitions", index), f"there is no partition {last}: {there}")


def _check_promoted(here: Path, operation: OperationModel, store: str, spec: SpecModel, findings: Findings) -> None:
    findings.reference((*here, "promote"), "service", store, findings.known("service"))
    service = spec.services.get(store)
    if service is not None and (service.workload.store is None or service.class_ != "sharded"):
        message = f"{store} has no replicas in cells that could lead: it must be a store of `class: sharded`"
        findings.report((*here, "promote"), message)
    elif service is not None and service.workload.store is not None and service.workload.store.mode == "async":
        findings.report((*here, "promote"), f"{store} is of mode async: its leaders go by the map anyway; remove it")
    if operation.switch is not None:
        findings.report((*here, "promote"), "`switch` moves no partitions; remove one of them", at_key=True)


def _check_forbidden(here: Path, operation: OperationModel, store: str, spec: SpecModel, findings: Findings) -> None:
    findings.reference((*here, "forbidWrite"), "service", store, findings.known("service"))
    service = spec.services.get(store)
    if service is not None and (service.workload.store is None or service.workload.store.mode != "async"):
        message = f"{store} is no store of mode async, whose writes have to be held back; remove it, or write `promote`"
        findings.report((*here, "forbidWrite"), message)
    if operation.switch is not None:
        findings.report((*here, "forbidWrite"), "`switch` moves no partitions; remove one of them", at_key=True)


def _check_kind(here: Path, operation: OperationModel, cells: CellsModel, findings: Findings) -> None:
    if (part := operation.pop_out) is not None and part.to in cells.cells and not cells.cells[part.to].elastic:
        message = f"cell {part.to} is not elastic; write `elastic: true` there, or `move` instead"
        findings.report((*here, "popOut", "to"), message)
    if (part := operation.pop_out) is not None and part.share == 0.0:
        findings.report((*here, "popOut", "share"), "must be more than 0%")
    if (switch := operation.switch) is not None and not cells_switched(switch, cells):
        findings.report((*here, "switch", "group"), f"no cell has a deployment group {switch.group!r}")


def _check_steps(here: Path, operation: OperationModel, findings: Findings) -> None:
    steps = [0.0, *operation.steps]
    if any(later <= earlier for earlier, later in pairwise(steps)) or steps[-1] != 1.0:
        findings.report((*here, "steps"), "must rise to 100%: each step says how much is done by then")


def _check_time(here: Path, operation: OperationModel, model: ScenarioModel, findings: Findings) -> None:
    last_s = operation.pause * (len(operation.steps) - 1)
    if operation.for_ is not None and operation.for_ <= last_s:
        message = f"is over before the last step, {DURATION.format(last_s)} after the first"
        findings.report((*here, "for"), message)
    if not findings.is_whole("spec", "load", "duration"):
        return
    run = f"the load lasts {DURATION.format(model.spec.load.duration)}"
    end_s = operation.at + max(operation.for_ or 0.0, last_s)
    if operation.at >= model.spec.load.duration:
        findings.report((*here, "at"), f"lies outside the run: {run}")
    elif end_s > model.spec.load.duration:
        key = "for" if operation.for_ is not None else "pause"
        findings.report((*here, key), f"lasts until {end_s:g}s, outside the run: {run}")


def _check_plan(spec: SpecModel, findings: Findings) -> None:
    cell_map = partition_map(spec)
    assert cell_map is not None
    numbers = {operation.name: index for index, operation in enumerate(spec.operations)}
    try:
        steps = planned(cell_map, scheduled_operations(spec))
    except OperationImpossible as impossible:
        findings.report(("spec", "operations", numbers[impossible.operation]), str(impossible))
        return
    for step in steps:
        index = numbers[step.operation]
        for name, service in spec.services.items():
            store = service.workload.store
            if store is None or (store.mode != "async" and spec.operations[index].promote != name):
                continue
            try:
                moved_groups(groups_of(len(cell_map.owners), store.groups), step.change)
            except GroupSplit as split:
                where: Path = ("promote",) if spec.operations[index].promote == name else ()
                findings.report(("spec", "operations", index, *where), str(split))
