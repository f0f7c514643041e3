"""`testbed preflight`: whether the machines of a cluster file would be a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from testbed.cli.terminal import EXIT_BAD_INPUT, console, fail
from testbed.scenario import ScenarioError


def preflight(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A Ray cluster file.")] = Path("cluster.yaml"),
) -> None:
    """Try the machines of a cluster file before `ray up` does, and tell everything that would keep it from working."""
    from testbed.machines.preflight import try_machines

    try:
        reports = try_machines(file)
    except ScenarioError as error:
        fail("\n".join(str(problem) for problem in error.problems), EXIT_BAD_INPUT)
    table = Table("machine", "zone", "Python", "Ray", box=None)
    for address, report in reports.items():
        table.add_row(*map(escape, (address, report.zone or "-", report.python, report.ray or "-")))
    console().print(table)
