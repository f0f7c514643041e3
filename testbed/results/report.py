"""A summary for the terminal, or a file: at most 40 lines of 100 columns for runs of ordinary size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import floor
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from testbed.results.facts import named
from testbed.results.summary import Summary

WIDTH = 100
_STYLES = {"passed": "bold green", "failed": "bold red", "invalid": "bold yellow", "interrupted": "bold yellow"}
_NONE = "-"
_MATRIX_ZONES = 6
_MATRICES = 3
_FAULTS = 8
_REASONS = 5
_NAMED = 3
_UNDECLARED = {
    "death": "processes ended",
    "restart": "restarted",
    "not ready": "not ready",
    "ejection": "ejected",
}
_QUANTILES = ("p50", "p90", "p99", "p999")


def print_report(summary: Summary, run_dir: Path, console: Console | None = None) -> None:
    """Prints to standard output, with colour only on a terminal, or to the given console."""
    (console or Console(width=WIDTH, highlight=False)).print(render(summary, run_dir))


def render(summary: Summary, run_dir: Path) -> RenderableType:
    """The verdict and why; expectations; faults; latency by phase; where calls went."""
    parts = [_headline(summary), *_reasons(summary), *_undeclared(summary["undeclared"])]
    for title, table, notes in (
        ("Expectations", _expectations(summary["expectations"]), []),
        ("Faults (times after the change)", _faults(summary), _notes(summary)),
        ("Requests by phase (latency of ok requests, ms)", _phases(summary), []),
        ("Calls by zone, from row to column", _matrices(summary), []),
    ):
        if table is not None:
            parts += [Text(title, style="bold"), Padding(table, (0, 0, 0, 2))]
            parts += [Padding(Text(note), (0, 0, 0, 2)) for note in notes]
    return Group(*parts, Text(f"Results in {run_dir}", style="dim"))


def _headline(summary: Summary) -> RenderableType:
    verdict = summary["verdict"]
    requests = summary["requests"]
    counts = ", ".join(f"{requests[name]} {name}" for name in ("sent", "ok", "failed", "unknown"))
    setting = f"profile {summary['profile']}, seed {summary['seed']}, ready in {_seconds(summary['ready_s'])}"
    lines = [Text(f"  requests: {counts}")]
    if len(summary["machines"]) > 1:
        lines.append(Text(f"  {_fleet(summary)}"))
    return Group(
        Text.assemble((verdict.upper(), _STYLES[verdict]), " ", (summary["name"], "bold"), (f"  {setting}", "dim")),
        *lines,
    )


def _fleet(summary: Summary) -> str:
    off = [
        f"{machine['name']} off from {_seconds(machine['lost_s'])}"
        for machine in summary["machines"]
        if machine["lost_s"] is not None
    ]
    parts = [f"{len(summary['machines'])} machines", f"clocks known to {summary['clock_error_ms']:.2f} ms", *off]
    return ", ".join(parts)


def _reasons(summary: Summary) -> list[RenderableType]:
    lines = [f"invalid: {reason}" for reason in summary["invalid_reasons"]]
    if summary["nacks"]["count"]:
        first = summary["nacks"]["first"][0]
        what = f"{first['proxy']}, {first['type'].rpartition('.')[2]}: {first['error']}"
        lines.append(f"{summary['nacks']['count']} pushes were rejected (NACK), first by {what}")
    if strange := summary["hops"]["requests_of_strangers"]:
        lines.append(f"{strange} requests came in that no client of this run sent; no figure counts them")
    if summary["verdict"] in ("failed", "invalid"):
        lines += [f"{row['count']} {row['outcome']}: {row['error']}" for row in summary["errors"][:2]]
    shown = lines if len(lines) <= _REASONS else [*lines[: _REASONS - 1], f"and {len(lines) - _REASONS + 1} more"]
    return [Text(f"  {line}", style="yellow", overflow="ellipsis", no_wrap=True) for line in shown]


def _undeclared(found: Sequence[Mapping[str, Any]]) -> list[RenderableType]:
    """A line for each kind of thing that went down and no fault explains, with the first few of them."""
    lines: list[RenderableType] = []
    for what, title in _UNDECLARED.items():
        objects: dict[str, list[Mapping[str, Any]]] = {}
        for one in found:
            if one["what"] == what:
                objects.setdefault(one["object"], []).append(one)
        if objects:
            named = [_where_and_when(name, times) for name, times in list(objects.items())[:_NAMED]]
            more = f", and {len(objects) - _NAMED} more" if len(objects) > _NAMED else ""
            lines.append(Text(f"  {title}, by no fault: {'; '.join(named)}{more}", style="yellow"))
    return lines


def _where_and_when(name: str, times: Sequence[Mapping[str, Any]]) -> str:
    first = times[0]
    again = f", {len(times)} times" if len(times) > 1 else ""
    why = f" ({first['why']})" if first["why"] else ""
    return f"{name} at {_seconds(first['t_s'])}{again}{why}"


def _expectations(results: Sequence[Mapping[str, Any]]) -> Table | None:
    if not results:
        return None
    table = _grid()
    for result in results:
        held = result["held"]
        mark = Text("held", style="green") if held else Text("MISSED", style="red")
        table.add_row(mark, result["text"], Text(result["shown"], style="" if held else "red"))
    return table


def _faults(summary: Summary) -> Table | None:
    faults, noisy = summary["faults"], summary["recovery_baseline"]["steady_not_ok_share"] > 0
    if not faults:
        return None
    usual = ("as steady",) if noisy else ()
    steps = ("recovered", "detect", "decide", "push", "ACKed")
    table = _grid("fault", "at", "1st error", "failed", "unknown", *usual, *steps, left=1)
    for fault in faults[:_FAULTS]:
        table.add_row(fault["name"], _seconds(fault["applied_s"]), *_aftermath(fault, fault["applied_s"], noisy))
        if fault["heal"] is not None:
            table.add_row("  healed", _seconds(fault["healed_s"]), *_aftermath(fault["heal"], fault["healed_s"], noisy))
    if len(faults) > _FAULTS:
        table.add_row(f"and {len(faults) - _FAULTS} more")
    return table


def _notes(summary: Summary) -> list[str]:
    """What there is to know about the table of faults: whom they hit, errors that are none of theirs, and figures that
    they share."""
    faults, baseline = summary["faults"], summary["recovery_baseline"]
    notes = [f"{fault['name']} hit {named(fault['victims'])}" for fault in faults[:_FAULTS] if fault["victims"]]
    if share := baseline["steady_not_ok_share"]:
        level = f"{_share(1 - share)} of the steady phase was ok"
        below = f", which is below {baseline['target_success_rate']:.0%}" if baseline["steady_below_target"] else ""
        notes.append(f"{level}{below}: recovered means no worse than that, beyond chance")
    return notes + _shared(faults)


def _shared(faults: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each moment at which several changes came together."""
    together = {
        tuple(sorted((name, *change["shared_with"])))
        for fault in faults
        for name, change in ((fault["name"], fault), (f"heal of {fault['name']}", fault["heal"]))
        if change is not None and change["shared_with"]
    }
    return [f"{', '.join(names)} came together: each has the figures of all of them" for names in sorted(together)]


def _aftermath(change: Mapping[str, Any], at_s: float, noisy: bool) -> list[str | Text]:
    first_error_s, recover_s, control = change["first_error_s"], change["time_to_recover_s"], change["control_path"]
    return [
        # A request in flight was meant to be sent before the fault came, and suffered from it at once.
        _NONE if first_error_s is None else _seconds(max(0.0, first_error_s - at_s)),
        str(change["errors"]["failed"]),
        str(change["errors"]["unknown"]),
        *([f"{change['errors_as_in_steady']:.0f}"] if noisy else []),
        Text("never", style="red") if recover_s is None else _seconds(recover_s),
        *(_seconds(control[step]) for step in ("detected_s", "decided_s", "pushed_s", "propagated_s")),
    ]


def _phases(summary: Summary) -> Table:
    table = _grid("phase", "from", "sent", "rate", "ok", *_QUANTILES, "in zone", left=1)
    for phase in summary["phases"]:
        if phase["name"] == "warmup":
            continue
        table.add_row(
            phase["name"],
            _seconds(phase["start_s"]),
            str(phase["sent"]),
            f"{phase['rate_per_s']:.0f}/s",
            _share(phase["success_rate"]),
            *(_NONE if (ms := phase["latency_ms"][name]) is None else f"{ms:.1f}" for name in _QUANTILES),
            _share(summary["same_zone_share_by_phase"][phase["name"]]),
        )
    return table


def _matrices(summary: Summary) -> Table | None:
    """Matrices of the first phases after the warm-up side by side, as many as fit."""
    matrices = {
        name: matrix
        for name, matrix in summary["call_matrix_by_phase"].items()
        if name not in ("warmup", "all") and matrix
    }
    if not matrices:
        return None
    zones = sorted({zone for matrix in matrices.values() for row in matrix for zone in (row, *matrix[row])})
    shown = zones[:_MATRIX_ZONES]
    row_width = max(map(len, shown))
    width = row_width + sum(2 + max(len(zone), 6) for zone in shown)
    fitting = max(1, min(_MATRICES, (WIDTH - 2) // (width + 4)))
    grid = Table.grid(padding=(0, 4, 0, 0))
    tables = []
    for name, matrix in list(matrices.items())[:fitting]:
        title = name if len(shown) == len(zones) else f"{name} ({len(zones) - len(shown)} more zones not shown)"
        table = _grid(title, *shown, left=1)
        for source in shown:
            calls = matrix.get(source, {})
            cells = [Text(str(calls.get(to, 0)), style="" if source == to else "cyan") for to in shown]
            table.add_row(source, *cells)
        tables.append(table)
    grid.add_row(*tables)
    return grid


def _grid(*headers: str, left: int = 3) -> Table:
    """A table without lines; its first `left` columns are left aligned."""
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=bool(headers), header_style="dim", pad_edge=False)
    for index, header in enumerate(headers):
        table.add_column(header, justify="left" if index < left else "right", no_wrap=True)
    return table


def _seconds(value_s: float | None) -> str:
    if value_s is None:
        return _NONE
    return f"{value_s * 1e3:.0f} ms" if abs(value_s) < 1 else f"{value_s:.2f} s"


def _share(value: float | None) -> str:
    """Rounded down, so that 100 % is all."""
    return _NONE if value is None else f"{floor(value * 1e4 + 1e-6) / 1e2:.2f} %"
