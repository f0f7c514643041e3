"""`testbed run`: one run from the command line, and its exit code."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

from testbed.cli.beginning import failures_told, new_run_dir, start_here
from testbed.cli.scenarios import Overrides, ScenarioFile, Seed, Watched, dry_run, load, warn
from testbed.cli.terminal import EXIT_BAD_INPUT, console, fail
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
    address: Annotated[
        str | None,
        typer.Option(
            "--address", envvar="RAY_ADDRESS", help="An existing Ray; auto: this machine's. Default: start one."
        ),
    ] = None,
    machines: Annotated[
        int, typer.Option("--machines", min=1, help="With --address: wait until so many machines have joined.")
    ] = 1,
    on: Annotated[
        str | None,
        typer.Option(
            "--on", metavar="M1,M2...", help="With --address: only these machines take part, this one among them."
        ),
    ] = None,
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
    if machines > 1 and address is None:
        fail("--machines: only a Ray cluster has several; name it with --address", EXIT_BAD_INPUT)
    if on is not None and address is None:
        fail("--on: only a Ray cluster has several machines; name it with --address", EXIT_BAD_INPUT)
    only = [name.strip() for name in on.split(",")] if on is not None else []
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
