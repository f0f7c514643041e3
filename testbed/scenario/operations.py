"""From the operations of a scenario to values that a plan is made of."""

from __future__ import annotations

from testbed.control.cells.operations import (
    CATCH_UP_WITHIN_S,
    Evacuate,
    FailOver,
    MovePartitions,
    Operation,
    Order,
    PopOut,
    RollBack,
    ScheduledOperation,
    SwitchGroup,
)
from testbed.scenario.cells import ranges
from testbed.scenario.models.cells import CellsModel
from testbed.scenario.models.experiment import SpecModel
from testbed.scenario.models.operations import OperationModel, SwitchModel


def scheduled_operations(spec: SpecModel) -> tuple[ScheduledOperation, ...]:
    """Of a scenario whose single operations are right."""
    cells = spec.cells
    return () if cells is None else tuple(_scheduled(each, cells) for each in spec.operations)


def _scheduled(model: OperationModel, cells: CellsModel) -> ScheduledOperation:
    condition = model.roll_back_if
    return ScheduledOperation(
        name=model.name,
        at_s=model.at,
        operation=_operation(model, cells),
        steps=tuple(model.steps),
        pause_s=model.pause,
        for_s=model.for_,
        order=model.order or default_order(model),
        promotes=model.promote,
        forbids=model.forbid_write,
        catch_up_within_s=model.catch_up_within or CATCH_UP_WITHIN_S,
        roll_back=None if condition is None else RollBack(condition.errors_above, condition.over),
    )


def default_catch_up_within(model: OperationModel) -> float | None:
    return None if model.forbid_write is None else CATCH_UP_WITHIN_S


def default_order(model: OperationModel) -> Order:
    return "together" if model.forbid_write is None else "gatewaysFirst"


def _operation(model: OperationModel, cells: CellsModel) -> Operation:
    """Expects exactly one of its kinds."""
    if (move := model.move) is not None:
        found = (number for _, first, last in ranges(move.partitions) for number in range(first, last + 1))
        return MovePartitions(tuple(dict.fromkeys(found)), move.to)
    if model.failover is not None:
        return FailOver(model.failover.cell)
    if model.evacuate is not None:
        return Evacuate(model.evacuate.city)
    if (part := model.pop_out) is not None:
        return PopOut(part.cell, part.to, part.share)
    assert model.switch is not None
    return SwitchGroup(cells_switched(model.switch, cells), model.switch.group)


def cells_switched(switch: SwitchModel, cells: CellsModel) -> tuple[str, ...]:
    if switch.cells is not None:
        return tuple(switch.cells)
    return tuple(name for name, cell in cells.cells.items() if switch.group in cell.groups)
