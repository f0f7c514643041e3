"""`testbed report`: what a result folder says."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from testbed.cli.terminal import EXIT_BAD_INPUT, console, fail


def report(
    run_dir: Annotated[Path, typer.Argument(metavar="DIR", help="A result folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Only summary.json, on standard output.")] = False,
) -> None:
    """Analyse a result folder again and print its summary."""
    from testbed.results.judge.verdict import EXIT_CODES
    from testbed.results.show.report import show
    from testbed.results.show.summarize import summarize
    from testbed.results.tables.damage import BadRunFolder
    from testbed.results.tables.folder import check_run_folder

    try:
        for left_out in check_run_folder(run_dir):
            print(left_out, file=sys.stderr)
        summary = summarize(run_dir)
    except BadRunFolder as error:
        fail("\n".join(error.problems), EXIT_BAD_INPUT)
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}", EXIT_BAD_INPUT)
    if as_json:
        sys.stdout.buffer.write(summary.json())
    else:
        show(summary, run_dir, console())
    raise typer.Exit(EXIT_CODES[summary.verdict])
