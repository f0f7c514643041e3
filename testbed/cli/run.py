"""`testbed run`: one run from the command line, and its exit code."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

from testbed.cli.beginning import Address, Machines, On, failures_told, new_run_dir, only_on, start_here
from testbed.cli.scenarios import Overrides, ScenarioFile, Seed, Watched, dry_run, load, warn
from testbed.cli.terminal import console, fail
from testbed.emulation.driver.interrupts import EXIT_INTERRUPTED, Interrupts
from testbed.scenario import Scenario
from testbed.scenario.call_plan import with_calls
from testbed.scenario.cell_plan import expected_shares
from testbed.scenario.question_plan import with_questions


def run(
    file: ScenarioFile,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where result folders go.")] = Path("runs"),
    seed: Seed = None,
    overrides: Overrides = [],  # noqa: B006 - typer copies it
    address: Address = None,
    machines: Machines = 1,
    on: On = None,
    hosting: Annotated[
        Literal["actor", "node"] | None,
        typer.Option(
            "--hosting", help="Where pods' supervisors live: an actor each, or their node's agent. Default: by number."
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the closing summary.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Only summary.json, on standard output.")] = False,
    watch: Watched = False,
) -> None:
    """Bring the cluster up, send load, break what is to be broken, and tell how long clients suffered."""
    only = only_on(address, machines, on)
    interrupts = Interrupts()
    interrupts.install()
    try:
        scenario = load(file, overrides, seed, programs_here=address is None)
        store = dry_run(file, scenario).store
        expected = with_calls(expected_shares(store, scenario.load), store, scenario)
        scenario = replace(scenario, expected=with_questions(expected, scenario))
        if not quiet:
            warn(scenario)
        _run(scenario, out, address, machines, only, hosting, interrupts, quiet=quiet, as_json=as_json, watch=watch)
    except KeyboardInterrupt:
        fail("interrupted", EXIT_INTERRUPTED)


def _run(
    scenario: Scenario,
    out: Path,
    address: str | None,
    machines: int,
    only: list[str],
    hosting: Literal["actor", "node"] | None,
    interrupts: Interrupts,
    *,
    quiet: bool,
    as_json: bool,
    watch: bool,
) -> NoReturn:
    start_here(address)
    # Imported late: Ray costs a second that no other command needs.
    from testbed.cli.showing import showing
    from testbed.emulation.driver.disk import RunDisk
    from testbed.emulation.driver.experiment import run as carry_out
    from testbed.results.judge.verdict import EXIT_CODES
    from testbed.results.show.report import show

    run_dir = new_run_dir(out, scenario.name)
    terminal = console()
    shortage = RunDisk(run_dir, scenario).shortage()
    if shortage is not None and not quiet:
        print(shortage, file=sys.stderr)
    with (
        failures_told(run_dir, scenario, on_this_machine=address is None),
        showing(scenario, run_dir, None if quiet or as_json else terminal, watch=watch) as shown,
    ):
        summary = carry_out(scenario, run_dir, shown.hear, interrupts, address, machines, hosting, only)
        shown.ended(summary)
    if as_json:
        sys.stdout.buffer.write(summary.json())
    else:
        show(summary, run_dir, terminal)
    raise typer.Exit(EXIT_CODES[summary.verdict])
