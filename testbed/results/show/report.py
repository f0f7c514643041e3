"""A summary for a terminal of any width, or a file: at most 40 lines for runs of ordinary size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from rich.console import Console
from rich.text import Text

from testbed.results.judge.verdict import ExpectationResult
from testbed.results.measure.calls import CallMatrix
from testbed.results.show.figures import NONE, seconds, share, since
from testbed.results.show.grid import Grid, NotedGrid, side_by_side, wrapped
from testbed.results.show.history_table import history_table
from testbed.results.show.leader_table import leader_table
from testbed.results.show.ledger_tables import by_distance, by_right
from testbed.results.show.operation_table import changes_heading, operation_steps
from testbed.results.show.remarks import fault_notes, warnings
from testbed.results.show.router_table import questions
from testbed.results.show.summary import ChangeFigures, Summary

_INDENT = "  "
_HANGING = "    "
_STYLES = {"passed": "bold green", "failed": "bold red", "invalid": "bold yellow", "interrupted": "bold yellow"}
_MATRIX_ZONES = 6
_MATRICES = 3
_BETWEEN = "    "
_FAULTS = 8
_ERRORS = 8
_QUANTILES = ("p50", "p90", "p99", "p999")


def show(summary: Summary, run_dir: Path, console: Console) -> None:
    """Print the report as wide as the console is. What does not fit all the same is left to the terminal to wrap."""
    for line in render(summary, run_dir, console.width):
        console.print(line, soft_wrap=True)


def render(summary: Summary, run_dir: Path, width: int) -> Iterator[Text]:
    """Lines: the verdict and why; expectations; faults; errors; latency by phase; where calls went."""
    inner = width - len(_INDENT)
    yield from _headline(summary, width)
    for line in warnings(summary):
        yield from wrapped(Text(line, style="yellow"), width, _INDENT, _HANGING)
    for title, block in (
        ("Expectations", _expectations(summary.expectations, inner)),
        (f"{changes_heading(summary)} (times after the change)", _faults(summary, inner)),
        ("Steps of operations (times of layers and owners after the step)", _noted(operation_steps(summary), inner)),
        ("Requests that were not ok", _errors(summary, inner)),
        ("Requests by phase (latency of ok requests, ms)", _phases(summary).lines(inner)),
        ("Leaders of logs", _noted(leader_table(summary), inner)),
        ("Questions to the router (ms until told)", _noted(questions(summary), inner)),
        ("What clients read of what they wrote", _noted(history_table(summary), inner)),
        ("Calls by distance, and what they would cost in 30 days", _noted(by_distance(summary), inner)),
        ("Calls between pods by right", _noted(by_right(summary), inner)),
        ("Calls by zone, from row to column", _matrices(summary, inner)),
    ):
        if block:
            yield from wrapped(Text(title, style="bold"), width)
            yield from (Text(_INDENT) + line for line in block)
    # A path is of use in one piece only.
    yield Text(f"Results in {run_dir}", style="dim")


def _headline(summary: Summary, width: int) -> Iterator[Text]:
    verdict = summary.verdict
    requests = summary.requests
    counts = f"{requests.sent} sent, {requests.ok} ok, {requests.failed} failed, {requests.unknown} unknown"
    setting = f"profile {summary.profile}, seed {summary.seed}, ready in {seconds(summary.ready_s)}"
    title = Text.assemble((verdict.upper(), _STYLES[verdict]), " ", (summary.name, "bold"), (f"  {setting}", "dim"))
    yield from wrapped(title, width, hanging=_HANGING)
    yield from wrapped(Text(f"requests: {counts}"), width, _INDENT, _HANGING)
    if len(summary.machines) > 1:
        yield from wrapped(Text(_fleet(summary)), width, _INDENT, _HANGING)


def _fleet(summary: Summary) -> str:
    off = [
        f"{machine.name} off from {seconds(machine.lost_s)}"
        for machine in summary.machines
        if machine.lost_s is not None
    ]
    parts = [f"{len(summary.machines)} machines", f"clocks known to {summary.clock_error_ms:.2f} ms", *off]
    return ", ".join(parts)


def _expectations(results: Sequence[ExpectationResult], width: int) -> list[Text]:
    """Bound and figure beside each other where all fit, else below each other."""
    marks = {True: Text("held", style="green"), False: Text("MISSED", style="red"), None: Text("not judged", "yellow")}
    mark_width = max((len(marks[result.held]) for result in results), default=0)
    text_width = max((len(result.text) for result in results), default=0)
    shown_width = max((len(result.shown) for result in results), default=0)
    beside = mark_width + text_width + shown_width + 4 <= width
    lines = []
    for result in results:
        mark, missed = marks[result.held], result.held is False
        shown = Text(result.shown, style="red" if missed else "")
        start = mark + Text(" " * (mark_width - len(mark) + 2))
        if beside:
            lines.append(start + Text(f"{result.text:<{text_width}}  ") + shown)
        else:
            hanging = " " * len(start)
            lines += wrapped(start + Text(result.text), width, hanging=hanging)
            lines += wrapped(shown, width, hanging, hanging)
    return lines


def _faults(summary: Summary, width: int) -> list[Text]:
    faults, noisy = summary.faults, summary.recovery_baseline.steady_not_ok_share > 0
    if not faults:
        return []
    moved = any(change.entry for fault in faults for change in (fault, fault.heal) if change is not None)
    suffered = ("at", "1st error", "seen", "recovered")
    errors = ("failed", "unknown", *(("as steady",) if noisy else ()))
    entry = ("at entry", "moved") if moved else ()
    steps = ("detect", "decide", "push", "ACKed")
    rows: list[list[str | Text]] = []
    for fault in faults[:_FAULTS]:
        rows.append([fault.name, seconds(fault.applied_s), *_aftermath(fault, fault.applied_s, noisy, moved)])
        if fault.heal is not None and fault.healed_s is not None:
            heal = _aftermath(fault.heal, fault.healed_s, noisy, moved)
            rows.append(["  over" if fault.steps else "  healed", seconds(fault.healed_s), *heal])
    what = "operation" if all(fault.steps for fault in faults) else "fault"
    groups = (suffered, errors, entry, steps)
    lines = Grid((what, *chain(*groups)), rows, [len(group) for group in groups if group]).lines(width)
    notes = [f"and {len(faults) - _FAULTS} more"] if len(faults) > _FAULTS else []
    notes += fault_notes(summary, _FAULTS)
    return lines + [line for note in notes for line in wrapped(Text(note), width, "", _INDENT)]


def _errors(summary: Summary, width: int) -> list[Text]:
    errors = summary.errors
    figures = max((len(str(error.count)) for error in errors), default=0)
    lines = []
    for error in errors[:_ERRORS]:
        start = f"{error.count:>{figures}} {error.outcome}: "
        lines += wrapped(Text(start + (error.error or "no reason given")), width, "", " " * (figures + 1))
    if more := errors[_ERRORS:]:
        lines += wrapped(Text(f"and {len(more)} more, of {sum(error.count for error in more)} requests"), width)
    return lines


def _aftermath(change: ChangeFigures, at_s: float, noisy: bool, moved: bool) -> list[str | Text]:
    recover_s, control, entry = change.time_to_recover_s, change.control_path, change.entry
    return [
        since(change.first_error_s, at_s),
        since(change.first_error_seen_s, at_s),
        Text("never", style="red") if recover_s is None else seconds(recover_s),
        str(change.errors.failed),
        str(change.errors.unknown),
        *([f"{change.errors_as_in_steady:.0f}"] if noisy else []),
        *([NONE if entry is None else str(entry.errors.all)] if moved else []),
        *([since(None if entry is None else entry.moved_s, at_s)] if moved else []),
        *(seconds(step) for step in (control.detected_s, control.decided_s, control.pushed_s, control.propagated_s)),
    ]


def _phases(summary: Summary) -> Grid:
    rows: list[list[str | Text]] = [
        [
            phase.name,
            seconds(phase.start_s),
            str(phase.sent),
            f"{phase.rate_per_s:.0f}/s",
            share(phase.success_rate),
            *(NONE if (ms := phase.latency_ms[name]) is None else f"{ms:.1f}" for name in _QUANTILES),
            share(summary.same_zone_share_by_phase[phase.name]),
        ]
        for phase in summary.phases
        if phase.name != "warmup"
    ]
    return Grid(("phase", "from", "sent", "rate", "ok", *_QUANTILES, "in zone"), rows, (4, len(_QUANTILES) + 1))


def _noted(table: NotedGrid | None, width: int) -> list[Text]:
    return [] if table is None else table.lines(width)


def _matrices(summary: Summary, width: int) -> list[Text]:
    """Matrices of the first phases after the warm-up side by side, as many as fit."""
    matrices = {
        name: matrix
        for name, matrix in summary.call_matrix_by_phase.items()
        if name not in ("warmup", "all") and matrix
    }
    zones = sorted({zone for matrix in matrices.values() for row in matrix for zone in (row, *matrix[row])})
    shown = zones[:_MATRIX_ZONES]
    blocks: list[list[Text]] = []
    for name, matrix in list(matrices.items())[:_MATRICES]:
        title = name if len(shown) == len(zones) else f"{name} ({len(zones) - len(shown)} more zones not shown)"
        rows: list[list[str | Text]] = [[source, *(_calls(matrix, source, to) for to in shown)] for source in shown]
        block = Grid((title, *shown), rows).lines(width)
        if blocks and max(map(len, side_by_side([*blocks, block], _BETWEEN))) > width:
            break
        blocks.append(block)
    return side_by_side(blocks, _BETWEEN)


def _calls(matrix: CallMatrix, source: str, to: str) -> Text:
    return Text(str(matrix.get(source, {}).get(to, 0)), style="" if source == to else "cyan")
