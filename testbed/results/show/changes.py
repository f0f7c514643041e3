"""What followed a change, as the summary has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from testbed.results.measure.entry import EntryMove
from testbed.results.measure.outcomes import Errors
from testbed.results.measure.parts import By
from testbed.results.measure.recovery import Aftermath, Recovery
from testbed.results.measure.steady import Steady
from testbed.results.show.summary import ChangeFigures, EntryFigures, FaultFigures, RecoveryFigures
from testbed.results.tables.facts import AppliedFault


def fault_figures(fault: AppliedFault, after: ChangeFigures, heal: ChangeFigures | None) -> FaultFigures:
    """Without what its proxies did step by step: only the end of a run can tell."""
    return FaultFigures(
        name=fault.name,
        declared_at_s=fault.declared_at_s,
        applied_s=fault.applied_s,
        healed_s=fault.healed_s,
        victims=fault.victims,
        hit_nothing=fault.hit_nothing,
        steps=(),
        handovers=(),
        **vars(after),
        heal=heal,
    )


def change_figures(aftermath: Aftermath, steady: Steady, steady_by: Mapping[By, Mapping[str, Steady]]) -> ChangeFigures:
    return ChangeFigures(
        **vars(_recovery(aftermath.recovery, steady)),
        entry=_entry(aftermath.entry),
        control_path=aftermath.control,
        by={
            by: {name: _recovery(part, steady_by[by][name]) for name, part in parts.items()}
            for by, parts in aftermath.by.items()
            if parts
        },
        shared_with=aftermath.shared_with,
    )


def _recovery(recovery: Recovery, steady: Steady) -> RecoveryFigures:
    return RecoveryFigures(
        first_error_s=recovery.first_error_s,
        first_error_seen_s=recovery.first_error_seen_s,
        last_error_s=recovery.last_error_s,
        recovered_s=recovery.recovered_s,
        time_to_recover_s=recovery.time_to_recover_s,
        errors=recovery.errors,
        errors_as_in_steady=recovery.sent * steady.not_ok_share,
        sent=recovery.sent,
    )


def _entry(moves: Sequence[EntryMove]) -> EntryFigures | None:
    if not moves:
        return None
    errors = Errors(sum(move.errors.failed for move in moves), sum(move.errors.unknown for move in moves))
    began_s, moved_s = min(move.began_s for move in moves), max(move.moved_s for move in moves)
    return EntryFigures(began_s, moved_s, errors, tuple(moves))
