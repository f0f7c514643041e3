"""Operations step by step: a line for each new version of the partition map, when each layer had it, and when what it
moved changed hands."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

from rich.text import Text

from testbed.objects.cells import Layer
from testbed.results.measure.blocked import BlockedWrites
from testbed.results.measure.handover import Handover
from testbed.results.show.figures import NONE, seconds
from testbed.results.show.grid import Grid, NotedGrid
from testbed.results.show.summary import Summary
from testbed.results.tables.facts import HeldWrites, MapStep, named

LAYERS = get_args(Layer)
_STEPS = 12
_HANDED = ("old until", "new from", "between")


def changes_heading(summary: Summary) -> str:
    """What the changes of a run are called together."""
    operations = [bool(fault.steps) for fault in summary.faults]
    if not any(operations):
        return "Faults"
    return "Operations" if all(operations) else "Faults and operations"


def operation_steps(summary: Summary) -> NotedGrid | None:
    """Times of layers and owners are after the step; a layer that had not acknowledged while it was waited for is
    `late`."""
    steps = [(fault.name, *each) for fault in summary.faults for each in zip(fault.steps, fault.handovers, strict=True)]
    if not steps:
        return None
    rows: list[list[str | Text]] = []
    notes = [f"and {len(steps) - _STEPS} more steps"] if len(steps) > _STEPS else []
    for name, step, handover in steps[:_STEPS]:
        which = ("given up" if step.gives_up else "back") if step.reverts else f"{step.number}/{step.of}"
        delivered = [_delivered(step, layer) for layer in LAYERS]
        told = [f"{name} {which}", seconds(step.applied_s), str(step.version), step.partitions or NONE, *delivered]
        rows.append([*told, *_handed(step, handover)])
        notes += _data(f"{name} {which}", step, summary.blocked.get(str(step.version)))
        if step.missing:
            notes.append(f"{name} {which}: without version {step.version} were left {named(step.missing)}")
        if handover is not None and handover.served_by_both:
            both = named([str(partition) for partition in handover.served_by_both])
            of = f"{len(handover.served_by_both)} of {handover.partitions} partitions"
            notes.append(f"{name} {which}: {of} were served by both owners at a time: {both}")
    headers = ("step", "at", "map", "partitions", *LAYERS, *_HANDED)
    return NotedGrid(Grid(headers, rows, (3 + len(LAYERS), len(_HANDED))), tuple(map(Text, notes)))


def _data(what: str, step: MapStep, blocked: BlockedWrites | None) -> Iterator[str]:
    if step.promoted is not None:
        took, missing = seconds(step.promoted.until_s - step.promoted.began_s), step.promoted.missing
        late = f"; {named(missing)} did not know of it by then" if missing else ""
        yield f"{what}: before it, replicas of the new owners were asked to lead, and did after {took}{late}"
    elif step.held is not None:
        yield f"{what}: {_held(step, step.held)}"
    if blocked is None:
        return
    gaps = [f"{seconds(blocked_s)} (partitions {partitions})" for partitions, blocked_s in blocked.blocked]
    why = "without a leader" if step.held is None else "blocked"
    yield f"{what}: {why} were {named(gaps) if gaps else 'none, as far as leaders could tell'}"
    moved, others = (
        f"{refused} of {sent} writes {of}"
        for refused, sent, of in (
            (blocked.moved_refused, blocked.moved, "of what moved"),
            (blocked.others_refused, blocked.others, "of all else"),
        )
    )
    span = f"from {seconds(blocked.from_s)} to {seconds(blocked.until_s)}"
    yield f"{what}: {moved} and {others} were not acknowledged {span}"


def _held(step: MapStep, held: HeldWrites) -> str:
    """Each phase with the time from the first order to its end."""
    ends = [("writes were forbidden", held.forbidden_s)]
    if held.caught_up_s is not None:
        ends.append(("replication caught up", held.caught_up_s))
    if held.given_up_s is not None:
        ends.append(("it was given up, as replication had not caught up,", held.given_up_s))
    ends += [(f"{layer} had the map", at_s) for layer, at_s in step.delivered_s.items() if at_s is not None]
    ends.append(("writes were allowed", held.lifted_s))
    told = [f"{end} after {seconds(at_s - held.began_s)}" for end, at_s in sorted(ends, key=lambda end: end[1])]
    missing = f"; {named(held.missing)} could not be told to take none" if held.missing else ""
    lacked = f"to be waited for were {held.lacked} writes"
    if held.given_up_s is not None and not held.lacked:
        lacked = "whoever led has not answered how many writes were to be waited for"
    return f"{', '.join(told)}; {lacked}{missing}"


def _delivered(step: MapStep, layer: str) -> Text | str:
    if layer not in step.delivered_s:
        return NONE
    at_s = step.delivered_s[layer]
    return Text("late", style="yellow") if at_s is None else seconds(at_s - step.applied_s)


def _handed(step: MapStep, handover: Handover | None) -> list[str | Text]:
    if handover is None:
        return [NONE] * len(_HANDED)
    between_s = handover.between_s
    ends_s = handover.old_until_s, handover.new_from_s
    until_s, from_s = (None if at_s is None else at_s - step.applied_s for at_s in ends_s)
    what = "gap" if between_s is None or between_s >= 0 else "overlap"
    between = NONE if between_s is None else f"{what} {seconds(abs(between_s))}"
    return [seconds(until_s), seconds(from_s), between]
