"""`testbed run`: one run from the command line, and its exit code."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

from testbed.cli.scenarios import Overrides, ScenarioFile, Seed, dry_run, load, warn
from testbed.cli.terminal import EXIT_BAD_INPUT, EXIT_INVALID, console, fail
from testbed.emulation.driver.interrupts import EXIT_INTERRUPTED, Interrupts
from testbed.scenario import Scenario
from testbed.scenario.cell_plan import expected_shares


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
    hosting: Annotated[
        Literal["actor", "node"] | None,
        typer.Option(
            "--hosting", help="Where pods' supervisors live: an actor each, or their node's agent. Default: by number."
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the closing summary.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Only summary.json, on standard output.")] = False,
) -> None:
    """Bring the cluster up, send load, break what is to be broken, and tell how long clients suffered."""
    if machines > 1 and address is None:
        fail("--machines: only a Ray cluster has several; name it with --address", EXIT_BAD_INPUT)
    interrupts = Interrupts()
    interrupts.install()
    try:
        scenario = load(file, overrides, seed, programs_here=address is None)
        expected = expected_shares(dry_run(file, scenario).store, scenario.load)
        scenario = replace(scenario, expected=expected)
        if not quiet:
            warn(scenario)
        _run(scenario, out, address, machines, hosting, interrupts, quiet=quiet, as_json=as_json)
    except KeyboardInterrupt:
        fail("interrupted", EXIT_INTERRUPTED)


def _run(
    scenario: Scenario,
    out: Path,
    address: str | None,
    machines: int,
    hosting: Literal["actor", "node"] | None,
    interrupts: Interrupts,
    *,
    quiet: bool,
    as_json: bool,
) -> NoReturn:
    # Imported late: Ray costs a second that no other command needs.
    from testbed.emulation.driver.local_ray import open_token, prepare

    if warning := open_token():
        print(warning, file=sys.stderr)
    if address is None:
        prepare()
    from testbed.cli.progress import LiveProgress
    from testbed.control.placement import PlacementImpossible
    from testbed.emulation.actors.load_generator import LoadGeneratorFailed
    from testbed.emulation.actors.vigil import ActorLost, in_short
    from testbed.emulation.driver.cluster import BringUpFailed
    from testbed.emulation.driver.disk import DiskFull, RunDisk
    from testbed.emulation.driver.experiment import RunInterrupted, write_defect
    from testbed.emulation.driver.experiment import run as carry_out
    from testbed.emulation.driver.member import MachineLost
    from testbed.emulation.driver.ray_connection import RayUnreachable
    from testbed.emulation.driver.survey import FleetUnfit
    from testbed.network.addresses.backend import AddressesExhausted
    from testbed.results.judge.verdict import EXIT_CODES
    from testbed.results.show.report import show

    run_dir = _new_run_dir(out, scenario.name)
    terminal = console()
    shortage = RunDisk(run_dir, scenario).shortage()
    if shortage is not None and not quiet:
        print(shortage, file=sys.stderr)
    try:
        if quiet or as_json:
            summary = carry_out(scenario, run_dir, lambda _: None, interrupts, address, machines, hosting)
        else:
            with LiveProgress(terminal) as progress:
                summary = carry_out(scenario, run_dir, progress.hear, interrupts, address, machines, hosting)
    except (RunInterrupted, KeyboardInterrupt) as interrupted:
        shutil.rmtree(run_dir)
        fail(str(interrupted) or "interrupted", EXIT_INTERRUPTED)
    except (PlacementImpossible, FleetUnfit, AddressesExhausted, RayUnreachable) as refusal:
        shutil.rmtree(run_dir)
        ours = isinstance(refusal, AddressesExhausted) or (isinstance(refusal, RayUnreachable) and address is None)
        fail(str(refusal), EXIT_INVALID if ours else EXIT_BAD_INPUT)
    except DiskFull as failure:
        began = any(run_dir.glob("logs/*.requests.jsonl"))
        if not began:
            shutil.rmtree(run_dir)
        kept = f"What could be kept: {run_dir}" if began else "Nothing was measured."
        fail(f"{failure}\n{kept}", EXIT_INVALID)
    except (BringUpFailed, LoadGeneratorFailed, MachineLost, ActorLost) as failure:
        _tell_pipelines(run_dir, scenario, str(failure))
        fail(f"{failure}\nLogs: {run_dir / 'logs'}", EXIT_INVALID)
    except Exception as defect:
        # Exit code 1 says that an expectation does not hold: about that nothing is known.
        log = write_defect(run_dir, defect)
        why = f"testbed itself failed, please report it: {in_short(defect)}"
        _tell_pipelines(run_dir, scenario, why)
        fail(f"{why}\nTraceback: {log}", EXIT_INVALID)
    if as_json:
        sys.stdout.buffer.write(summary.json())
    else:
        show(summary, run_dir, terminal)
    raise typer.Exit(EXIT_CODES[summary.verdict])


def _tell_pipelines(run_dir: Path, scenario: Scenario, why: str) -> None:
    """Leave the report that they read also where there is nothing to report of."""
    from testbed.results.show.junit import JUNIT_FILE, junit_without_results

    expectations = [expectation.text for expectation in scenario.expectations]
    with contextlib.suppress(OSError):
        (run_dir / JUNIT_FILE).write_bytes(junit_without_results(scenario.name, expectations, why))


def _new_run_dir(out: Path, name: str) -> Path:
    """A folder of its own for a run; two runs in one second get two folders."""
    # Where no shell has expanded it, as in the entrypoint of a Ray job.
    wanted = (out.expanduser() / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}").resolve()
    run_dir = wanted
    for number in count(2):
        try:
            run_dir.mkdir(0o700, parents=True)
            break
        except FileExistsError:
            run_dir = wanted.with_name(f"{wanted.name}-{number}")
        except OSError as error:
            fail(f"--out {out}: cannot make a result folder there: {error.strerror}", EXIT_BAD_INPUT)
    return run_dir
