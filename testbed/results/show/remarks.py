"""What there is to say about a run besides its figures, a line each, in every report."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from testbed.objects.places import CONTROL_PLANE
from testbed.results.judge.undeclared import Undeclared
from testbed.results.measure.entry import EntryMove
from testbed.results.show.figures import seconds, share, since
from testbed.results.show.summary import FaultFigures, MissingLoad, Summary
from testbed.results.tables.facts import named

_OF = {"origin": "clients of", "service": "requests for service", "cell": "requests of cell", "name": "requests"}
_MOVES = 3
_REASONS = 6
_NAMED = 3
_UNDECLARED = {
    "death": "processes ended",
    "restart": "restarted",
    "not ready": "not ready",
    "ejection": "ejected",
    "unhealthy": "unhealthy to clients",
}


def warnings(summary: Summary) -> list[str]:
    """Why not to believe the run, what is missing of it, what went down by no fault, and what was ill before any."""
    return [*_reasons(summary), *_undeclared(summary.undeclared), *_ill_before(summary)]


def _ill_before(summary: Summary) -> list[str]:
    baseline = summary.recovery_baseline
    parts = [f"{_OF[by]} {named(names)}" for by, names in baseline.steady_below_target_by.items() if names]
    if not summary.faults or not (baseline.steady_below_target or parts):
        return []
    found = f"{share(1 - baseline.steady_not_ok_share)} of all requests were ok" + ("; below it are " if parts else "")
    meaning = "recovered is no worse than that" if baseline.relative_to_steady else "they cannot recover"
    asked = f"{baseline.target_success_rate * 100:g} %"
    return [f"steady itself is below the {asked} that recovery asks for: {found}{'; '.join(parts)}: {meaning}"]


def _reasons(summary: Summary) -> list[str]:
    lines = [f"invalid: {reason}" for reason in summary.invalid_reasons]
    lines += [_missing(load) for load in summary.missing_load]
    if summary.nacks.count:
        first = summary.nacks.first[0]
        what = f"{first.proxy}, {first.type.rpartition('.')[2]}: {first.error}"
        lines.append(f"{summary.nacks.count} pushes were rejected (NACK), first by {what}")
    if strange := summary.hops.requests_of_strangers:
        lines.append(f"{strange} requests came in that no client of this run sent; no figure counts them")
    return lines if len(lines) <= _REASONS else [*lines[: _REASONS - 1], f"and {len(lines) - _REASONS + 1} more"]


def _missing(load: MissingLoad) -> str:
    what = [f"{load.rate_per_s:g}/s"] if load.rate_per_s else []
    what += [f"{load.users} users"] if load.users else []
    return (
        f"load of {load.zone} is missing from {seconds(load.from_s)} on ({' and '.join(what)}): "
        f"its clients were on machine {load.machine}, which went off; no figure has what they would have sent"
    )


def _undeclared(found: Sequence[Undeclared]) -> list[str]:
    """A line for each kind of thing that went down and no fault explains, with the first few of them."""
    lines = []
    for what, title in _UNDECLARED.items():
        objects: dict[str, list[Undeclared]] = {}
        for one in found:
            if one.what == what:
                objects.setdefault(one.object, []).append(one)
        if objects:
            first = [_where_and_when(name, times) for name, times in list(objects.items())[:_NAMED]]
            more = f"; and {len(objects) - _NAMED} more" if len(objects) > _NAMED else ""
            lines.append(f"{title}, by no fault: {'; '.join(first)}{more}")
    return lines


def _where_and_when(name: str, times: Sequence[Undeclared]) -> str:
    first = times[0]
    again = f", {len(times)} times" if len(times) > 1 else ""
    why = f" ({first.why})" if first.why else ""
    return f"{name} at {seconds(first.t_s)}{again}{why}"


def fault_notes(summary: Summary, shown: int) -> list[str]:
    """What there is to know about the first so many faults: whom they hit, where their clients went instead, errors
    that are none of theirs, and figures that they share."""
    faults, baseline = summary.faults, summary.recovery_baseline
    notes = [f"{fault.name} hit {named(fault.victims)}" for fault in faults[:shown] if fault.victims]
    notes += _takeovers(summary, shown)
    # Changes that came together share their moves.
    first = {fault.entry: fault for fault in reversed(faults[:shown])}
    notes += [line for fault in reversed(first.values()) for line in moves_in_words(fault)]
    if baseline.steady_not_ok_share and baseline.relative_to_steady and faults:
        level = f"{share(1 - baseline.steady_not_ok_share)} of the steady phase was ok"
        notes.append(f"{level}: recovered means no worse than that, beyond chance")
    return notes + _late(faults[:shown]) + _shared(faults)


def _takeovers(summary: Summary, shown: int) -> list[str]:
    """Which master took over after a fault, before the next one."""
    lines = []
    for fault in summary.faults[:shown]:
        ends_s = min((each.applied_s for each in summary.faults if each.applied_s > fault.applied_s), default=inf)
        for change in summary.leaders:
            if change.log == CONTROL_PLANE and change.what == "leads" and fault.applied_s <= change.t_s < ends_s:
                after = since(change.t_s, fault.applied_s)
                lines.append(
                    f"{fault.name}: {change.who} leads the control plane {after} after it (term {change.term})"
                )
                break
    return lines


def _late(faults: Sequence[FaultFigures]) -> list[str]:
    """Who could not be told in time: a line for all changes with the same."""
    found: dict[str, list[str]] = {}
    for fault in faults:
        for name, change in ((fault.name, fault), (f"heal of {fault.name}", fault.heal)):
            if change is not None and (proxies := change.control_path.cut_off):
                acked_s = change.control_path.cut_off_acked_s
                what = "did not have it meanwhile" if acked_s is None else f"had it after {seconds(acked_s)}"
                told = f"ACKed is without {len(proxies)} that were cut off and {what}: {named(proxies)}"
                found.setdefault(told, []).append(name)
    return [f"{', '.join(names)}: {told}" for told, names in found.items()]


def moves_in_words(fault: FaultFigures) -> list[str]:
    """Clients that lost something at the gateway that they left."""
    moves = [] if fault.entry is None else [move for move in fault.entry.moves if move.errors.all]
    lines = [f"{fault.name}: {in_words(move, fault.applied_s)}" for move in moves[:_MOVES]]
    return [*lines, *([f"{fault.name}: and {len(moves) - _MOVES} more zones"] if len(moves) > _MOVES else [])]


def in_words(move: EntryMove, change_s: float) -> str:
    told = "" if move.answered_s is None else f" (told after {since(move.answered_s, change_s)})"
    errors = f"{move.errors.all} errors" if move.errors.all != 1 else "1 error"
    of_cell = "" if move.cell is None else f" in {move.cell}"
    who = f"clients of {move.origin}{of_cell} left the gateway of {move.left} for that of {move.to}"
    return f"{who} after {since(move.moved_s, change_s)}{told}; {errors} until then"


def _shared(faults: Sequence[FaultFigures]) -> list[str]:
    """A line for each moment at which several changes came together."""
    together = {
        tuple(sorted((name, *change.shared_with)))
        for fault in faults
        for name, change in ((fault.name, fault), (f"heal of {fault.name}", fault.heal))
        if change is not None and change.shared_with
    }
    return [f"{', '.join(names)} came together: each has the figures of all of them" for names in sorted(together)]
