"""The command line: `testbed run | up | check | report | ...`; a module for each command, or for those that are alike.

Owns arguments, exit codes and how errors are shown. Exit codes: 0 expectations met, 1 not met, 2 bad input, 3 invalid
run or none at all, 130 interrupted.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
from typing import Annotated

import typer

from testbed.cli.change import apply, heal, inject, load
from testbed.cli.compare import compare
from testbed.cli.explain import explain
from testbed.cli.inspect import check, render, schema
from testbed.cli.logs import logs
from testbed.cli.machines import preflight
from testbed.cli.report import report
from testbed.cli.run import run
from testbed.cli.status import status
from testbed.cli.sweep import sweep
from testbed.cli.terminal import EXIT_INVALID, outlast_terminal
from testbed.cli.trace import trace
from testbed.cli.up import down, up
from testbed.machines.lab.cli import lab

app = typer.Typer(
    help="Break an emulated multi-zone platform on purpose and measure how its users fare.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for command in (
    run,
    sweep,
    up,
    status,
    inject,
    heal,
    apply,
    load,
    logs,
    down,
    check,
    explain,
    schema,
    render,
    report,
    compare,
    trace,
    preflight,
):
    app.command()(command)
app.add_typer(lab, name="lab")


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"testbed {importlib.metadata.version('testbed')}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None: ...


def main() -> None:
    outlast_terminal()
    try:
        app()
    except SystemExit as end:
        connection = sys.modules.get("testbed.emulation.driver.ray_connection")
        if connection is not None and connection.is_stuck():
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(end.code if isinstance(end.code, int) else EXIT_INVALID)
        raise
