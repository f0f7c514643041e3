"""`testbed compare`: what result folders say beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from testbed.cli.completion import complete_run
from testbed.cli.terminal import EXIT_BAD_INPUT, console, fail

if TYPE_CHECKING:
    from testbed.results.compare.runs import ComparedRun


def compare(
    run_dirs: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR...",
            help="Result folders, two at least, or the folder of a sweep.",
            autocompletion=complete_run,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="DIR", help="Write it there, as comparison.html and all figures as Parquet."),
    ] = None,
) -> None:
    """Rank variants of a scenario by what their runs measured, and tell which differences are more than chance."""
    from testbed.results.compare.runs import read_run
    from testbed.results.tables.damage import BadRunFolder
    from testbed.sweep.folder import SweepFolder, SweepRefused, is_sweep

    runs = []
    problems: list[str] = []
    for run_dir in dict.fromkeys(each.resolve() for each in run_dirs):
        try:
            runs += SweepFolder.read(run_dir).compared_runs() if is_sweep(run_dir) else [read_run(run_dir)]
        except BadRunFolder as error:
            problems += error.problems
        except SweepRefused as error:
            problems.append(str(error))
    if problems:
        fail("\n".join(problems), EXIT_BAD_INPUT)
    show_comparison(runs, output)


def show_comparison(runs: Sequence[ComparedRun], output: Path | None) -> None:
    """Print it, and write it to a folder if there is one; ends where there is nothing to compare."""
    from testbed.results.compare.comparison import compare as compared
    from testbed.results.compare.files import write
    from testbed.results.compare.shown import render

    if len(runs) < 2:
        fail("there is nothing to compare: two different result folders at least", EXIT_BAD_INPUT)
    comparison = compared(runs)
    out = console()
    for line in render(comparison, out.width):
        out.print(line, soft_wrap=True)
    if output is not None:
        try:
            write(comparison, output)
        except OSError as error:
            fail(f"{output}: cannot be written: {error.strerror}", EXIT_BAD_INPUT)
