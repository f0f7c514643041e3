"""`testbed report`: what a result folder says."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from testbed.cli.completion import complete_run
from testbed.cli.terminal import EXIT_BAD_INPUT, console, fail
from testbed.scenario import ScenarioError, load_expectations

if TYPE_CHECKING:
    from rich.console import Console

    from testbed.results.measure.parts import By

_PARTS_MAX = 40
"""What `--by` finds more than that is only counted."""


def report(
    run_dir: Annotated[Path, typer.Argument(metavar="DIR", help="A result folder.", autocompletion=complete_run)],
    as_json: Annotated[bool, typer.Option("--json", help="Only summary.json, on standard output.")] = False,
    as_openmetrics: Annotated[
        bool, typer.Option("--openmetrics", help="Only its figures as OpenMetrics text, on standard output.")
    ] = False,
    by: Annotated[
        str | None,
        typer.Option(
            "--by",
            metavar="KEY[,KEY]",
            help="Requests and recovery also by origin (zone of the clients), name, service or cell, or several.",
        ),
    ] = None,
    expect: Annotated[
        Path | None,
        typer.Option(
            "--expect",
            metavar="FILE",
            help="Judge it by the expectations of this file: a list of them, or a scenario. The folder stays as it is.",
        ),
    ] = None,
    save: Annotated[bool, typer.Option("--save", help="With --expect: they take the place of the run's own.")] = False,
) -> None:
    """Analyse a result folder again and print its summary."""
    if save and expect is None:
        fail("--save: what? It keeps the judgement by the expectations of --expect", EXIT_BAD_INPUT)
    if as_json and as_openmetrics:
        fail("--json and --openmetrics: one of the two", EXIT_BAD_INPUT)
    if by is not None and (as_json or as_openmetrics):
        fail("--by is for the report as text: leave out --json and --openmetrics", EXIT_BAD_INPUT)
    keys = None if by is None else _keys(by)
    from testbed.results.judge.verdict import EXIT_CODES
    from testbed.results.show.report import show
    from testbed.results.show.summarize import judge, summarize
    from testbed.results.tables.damage import BadRunFolder
    from testbed.results.tables.folder import check_run_folder

    try:
        for left_out in check_run_folder(run_dir):
            print(left_out, file=sys.stderr)
        if expect is None:
            summary = summarize(run_dir)
        else:
            expectations = load_expectations(expect, run_dir / "scenario.yaml")
            summary = summarize(run_dir, expectations) if save else judge(run_dir, expectations)
    except ScenarioError as error:
        fail("\n".join(map(str, error.problems)), EXIT_BAD_INPUT)
    except BadRunFolder as error:
        fail("\n".join(error.problems), EXIT_BAD_INPUT)
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}", EXIT_BAD_INPUT)
    if as_json:
        sys.stdout.buffer.write(summary.json())
    elif as_openmetrics:
        from testbed.results.show.openmetrics import openmetrics

        sys.stdout.buffer.write(openmetrics(summary))
    else:
        out = console()
        show(summary, run_dir, out)
        if keys is not None:
            _show_by(run_dir, keys, out)
    raise typer.Exit(EXIT_CODES[summary.verdict])


def _keys(text: str) -> list[By]:
    from testbed.results.measure.parts import BY

    wanted = [key.strip() for key in text.split(",")]
    if unknown := [key for key in wanted if key not in BY]:
        fail(f"--by: there is no {unknown[0]!r}; choose from {', '.join(BY)}, with commas for several", EXIT_BAD_INPUT)
    return [key for key in dict.fromkeys(wanted) if key in BY]


def _show_by(run_dir: Path, keys: list[By], out: Console) -> None:
    from testbed.results.measure.breakdown import break_down
    from testbed.results.show.by_tables import render

    for line in render(break_down(run_dir, keys, _PARTS_MAX), out.width):
        out.print(line, soft_wrap=True)
