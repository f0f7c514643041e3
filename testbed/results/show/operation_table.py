"""Operations step by step: a line for each new version of the partition map, and when each layer had it."""

from __future__ import annotations

from typing import get_args

from rich.text import Text

from testbed.objects.cells import Layer
from testbed.results.show.figures import NONE, seconds
from testbed.results.show.grid import Grid, NotedGrid
from testbed.results.show.summary import Summary
from testbed.results.tables.facts import MapStep, named

LAYERS = get_args(Layer)
_STEPS = 12


def changes_heading(summary: Summary) -> str:
    """What the changes of a run are called together."""
    operations = [bool(fault.steps) for fault in summary.faults]
    if not any(operations):
        return "Faults"
    return "Operations" if all(operations) else "Faults and operations"


def operation_steps(summary: Summary) -> NotedGrid | None:
    """Times of layers are after the step; one that had not acknowledged while it was waited for is `late`."""
    steps = [(fault.name, step) for fault in summary.faults for step in fault.steps]
    if not steps:
        return None
    rows: list[list[str | Text]] = []
    notes = [f"and {len(steps) - _STEPS} more steps"] if len(steps) > _STEPS else []
    for name, step in steps[:_STEPS]:
        which = ("given up" if step.gives_up else "back") if step.reverts else f"{step.number}/{step.of}"
        delivered = [_delivered(step, layer) for layer in LAYERS]
        partitions = step.partitions or NONE
        rows.append([f"{name} {which}", seconds(step.applied_s), str(step.version), partitions, *delivered])
        if step.missing:
            notes.append(f"{name} {which}: without version {step.version} were left {named(step.missing)}")
    return NotedGrid(Grid(("step", "at", "map", "partitions", *LAYERS), rows), tuple(map(Text, notes)))


def _delivered(step: MapStep, layer: str) -> Text | str:
    if layer not in step.delivered_s:
        return NONE
    at_s = step.delivered_s[layer]
    return Text("late", style="yellow") if at_s is None else seconds(at_s - step.applied_s)
