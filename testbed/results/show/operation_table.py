"""Operations step by step: a line for each new version of the partition map, and when each layer had it."""

from __future__ import annotations

from rich.text import Text

from testbed.results.show.figures import NONE, seconds
from testbed.results.show.grid import Grid, wrapped
from testbed.results.show.summary import Summary
from testbed.results.tables.facts import MapStep, named

LAYERS = ("gateways", "sidecars")
_STEPS = 12


def operation_lines(summary: Summary, width: int) -> list[Text]:
    """Times of layers are after the step; one that had not acknowledged while it was waited for is `late`."""
    steps = [(fault.name, step) for fault in summary.faults for step in fault.steps]
    if not steps:
        return []
    rows: list[list[str | Text]] = []
    notes = []
    for name, step in steps[:_STEPS]:
        which = ("given up" if step.gives_up else "back") if step.reverts else f"{step.number}/{step.of}"
        delivered = [_delivered(step, layer) for layer in LAYERS]
        rows.append(
            [f"{name} {which}", seconds(step.applied_s), f"{step.version}", step.partitions or NONE, *delivered]
        )
        if step.missing:
            notes.append(f"{name} {which}: without version {step.version} were left {named(step.missing)}")
    if more := len(steps) - _STEPS:
        notes = [f"and {more} more steps", *notes] if more > 0 else notes
    lines = Grid(("step", "at", "map", "partitions", *LAYERS), rows).lines(width)
    return lines + [line for note in notes for line in wrapped(Text(note), width, "", "  ")]


def _delivered(step: MapStep, layer: str) -> Text | str:
    if layer not in step.delivered_s:
        return NONE
    at_s = step.delivered_s[layer]
    return Text("late", style="yellow") if at_s is None else seconds(at_s - step.applied_s)
