"""The command line: `testbed run | check | schema | render | report | preflight | lab`.

Owns arguments, exit codes and how errors are shown. Exit codes: 0 expectations met, 1 not met, 2 bad input, 3 invalid
run or none at all, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import shutil
import sys
import time
import traceback
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import orjson
import typer
import yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from testbed.emulation.interrupts import EXIT_INTERRUPTED, Interrupts
from testbed.lab.cli import lab
from testbed.scenario import Scenario, ScenarioError, json_schema, load_scenario

if TYPE_CHECKING:
    from testbed.control.dry_run import DryRun

EXIT_BAD_INPUT = 2
EXIT_INVALID = 3
REPORT_COLUMNS = 110

app = typer.Typer(
    help="Break an emulated multi-zone platform on purpose and measure how its users fare.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(lab, name="lab")

ScenarioFile = Annotated[Path, typer.Argument(metavar="FILE", help="A scenario file.")]
Overrides = Annotated[
    list[str], typer.Option("--set", metavar="PATH=VALUE", help="Override a key: spec.load.duration=20s. Repeatable.")
]
Seed = Annotated[int | None, typer.Option("--seed", help="In place of the scenario's own seed.")]


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


@app.command()
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
        _fail("--machines: only a Ray cluster has several; name it with --address", EXIT_BAD_INPUT)
    interrupts = Interrupts()
    interrupts.install()
    try:
        scenario = _load(file, overrides, seed, programs_here=address is None)
        _dry_run(file, scenario)
        if not quiet:
            _warn(scenario)
        _run(scenario, out, address, machines, hosting, interrupts, quiet=quiet, as_json=as_json)
    except KeyboardInterrupt:
        _fail("interrupted", EXIT_INTERRUPTED)


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
    from testbed.emulation.local_ray import open_token, prepare

    if warning := open_token():
        print(warning, file=sys.stderr)
    if address is None:
        prepare()
    from testbed.control.placement import PlacementImpossible
    from testbed.emulation.cluster import BringUpFailed
    from testbed.emulation.disk import DiskFull, RunDisk
    from testbed.emulation.fleet import FleetUnfit
    from testbed.emulation.load_generator import LoadGeneratorFailed
    from testbed.emulation.member import MachineLost
    from testbed.emulation.ray_session import RayUnreachable
    from testbed.emulation.run import DEFECTS, RunInterrupted
    from testbed.emulation.run import run as carry_out
    from testbed.emulation.vigil import ActorLost, in_short
    from testbed.network.backend import AddressesExhausted
    from testbed.progress import LiveProgress, NoProgress
    from testbed.results.report import show
    from testbed.results.verdict import EXIT_CODES

    run_dir = _new_run_dir(out, scenario.name)
    console = _console()
    shortage = RunDisk(run_dir, scenario).shortage()
    if shortage is not None and not quiet:
        print(shortage, file=sys.stderr)
    try:
        if quiet or as_json:
            summary = carry_out(scenario, run_dir, NoProgress(), interrupts, address, machines, hosting)
        else:
            with LiveProgress(console) as progress:
                summary = carry_out(scenario, run_dir, progress, interrupts, address, machines, hosting)
    except (RunInterrupted, KeyboardInterrupt) as interrupted:
        shutil.rmtree(run_dir)
        _fail(str(interrupted) or "interrupted", EXIT_INTERRUPTED)
    except (PlacementImpossible, FleetUnfit, AddressesExhausted, RayUnreachable) as refusal:
        shutil.rmtree(run_dir)
        ours = isinstance(refusal, AddressesExhausted) or (isinstance(refusal, RayUnreachable) and address is None)
        _fail(str(refusal), EXIT_INVALID if ours else EXIT_BAD_INPUT)
    except DiskFull as failure:
        began = any(run_dir.glob("logs/*.requests.jsonl"))
        if not began:
            shutil.rmtree(run_dir)
        kept = f"What could be kept: {run_dir}" if began else "Nothing was measured."
        _fail(f"{failure}\n{kept}", EXIT_INVALID)
    except (BringUpFailed, LoadGeneratorFailed, MachineLost, ActorLost) as failure:
        _fail(f"{failure}\nLogs: {run_dir / 'logs'}", EXIT_INVALID)
    except Exception as defect:
        # Exit code 1 says that an expectation does not hold: about that nothing is known.
        log = run_dir / "logs" / DEFECTS
        with contextlib.suppress(OSError):
            log.parent.mkdir(exist_ok=True)
            with log.open("a") as file:
                traceback.print_exception(defect, file=file)
        _fail(f"testbed itself failed, please report it: {in_short(defect)}\nTraceback: {log}", EXIT_INVALID)
    if as_json:
        sys.stdout.buffer.write(orjson.dumps(summary, option=orjson.OPT_INDENT_2) + b"\n")
    else:
        show(summary, run_dir, console)
    raise typer.Exit(EXIT_CODES[summary["verdict"]])


@app.command()
def check(
    file: ScenarioFile,
    overrides: Overrides = [],  # noqa: B006
    seed: Seed = None,
    address: Annotated[
        str | None,
        typer.Option(
            "--address", envvar="RAY_ADDRESS", help="As for run: pods' programs are not looked for on this machine."
        ),
    ] = None,
) -> None:
    """Check a scenario file and tell everything that is wrong with it, or doubtful."""
    scenario = _load(file, overrides, seed, programs_here=address is None)
    _dry_run(file, scenario)
    _warn(scenario)
    nodes, services, warnings = len(scenario.topology.nodes), len(scenario.cluster.services), len(scenario.warnings)
    doubts = f", {warnings} warning{'s' if warnings > 1 else ''}" if warnings else ""
    print(f"{file}: ok: {scenario.name}, {nodes} nodes, {services} services, {len(scenario.faults)} faults{doubts}")


@app.command()
def schema() -> None:
    """Print the JSON Schema of scenario files, for editors."""
    sys.stdout.buffer.write(orjson.dumps(json_schema(), option=orjson.OPT_INDENT_2) + b"\n")


@app.command()
def render(
    file: ScenarioFile,
    overrides: Overrides = [],  # noqa: B006
    seed: Seed = None,
    proxy: Annotated[
        str | None, typer.Option("--proxy", metavar="POD", help="Show what the proxy of this pod is told instead.")
    ] = None,
) -> None:
    """Print the Kubernetes and Istio objects that a scenario becomes, without starting anything."""
    from testbed.control.dry_run import UnknownProxy

    cluster = _dry_run(file, _load(file, overrides, seed))
    try:
        documents = cluster.manifests() if proxy is None else cluster.proxy_resources(proxy)
    except UnknownProxy as error:
        _fail(str(error), EXIT_BAD_INPUT)
    print(yaml.safe_dump_all(documents, sort_keys=False, width=120), end="")


@app.command()
def report(
    run_dir: Annotated[Path, typer.Argument(metavar="DIR", help="A result folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Only summary.json, on standard output.")] = False,
) -> None:
    """Analyse a result folder again and print its summary."""
    from testbed.results.damage import BadRunFolder
    from testbed.results.folder import check_run_folder
    from testbed.results.report import show
    from testbed.results.summary import summarize
    from testbed.results.verdict import EXIT_CODES

    try:
        for left_out in check_run_folder(run_dir):
            print(left_out, file=sys.stderr)
        summary = summarize(run_dir)
    except BadRunFolder as error:
        _fail("\n".join(error.problems), EXIT_BAD_INPUT)
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}", EXIT_BAD_INPUT)
    if as_json:
        sys.stdout.buffer.write(orjson.dumps(summary, option=orjson.OPT_INDENT_2) + b"\n")
    else:
        show(summary, run_dir, _console())
    raise typer.Exit(EXIT_CODES[summary["verdict"]])


@app.command()
def preflight(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A Ray cluster file.")] = Path("cluster.yaml"),
) -> None:
    """Try the machines of a cluster file before `ray up` does, and tell everything that would keep it from working."""
    from testbed.preflight import try_machines

    try:
        reports = try_machines(file)
    except ScenarioError as error:
        _fail("\n".join(str(problem) for problem in error.problems), EXIT_BAD_INPUT)
    table = Table("machine", "zone", "Python", "Ray", box=None)
    for address, report in reports.items():
        table.add_row(*map(escape, (address, report.zone or "-", report.python, report.ray or "-")))
    _console().print(table)


def _load(file: Path, overrides: list[str], seed: int | None, *, programs_here: bool = False) -> Scenario:
    try:
        return load_scenario(file, overrides, seed, programs_here=programs_here)
    except ScenarioError as error:
        _fail("\n".join(str(problem) for problem in error.problems), EXIT_BAD_INPUT)


def _dry_run(file: Path, scenario: Scenario) -> DryRun:
    """The cluster as it comes up when nothing goes wrong; ends where a run would have no addresses for it."""
    from testbed.control.dry_run import DryRun
    from testbed.network.backend import AddressesExhausted
    from testbed.network.loopback import LoopbackNetwork

    try:
        network = LoopbackNetwork(1, [place.name for place in scenario.topology.places])
        return DryRun(scenario.cluster, network.allocate_pod, network.relay_listener)
    except AddressesExhausted as error:
        _fail(f"{file}: {error}", EXIT_BAD_INPUT)


def _warn(scenario: Scenario) -> None:
    for problem in scenario.warnings:
        print(problem, file=sys.stderr)


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
            _fail(f"--out {out}: cannot make a result folder there: {error.strerror}", EXIT_BAD_INPUT)
    return run_dir


def _console() -> Console:
    """As wide as the terminal or $COLUMNS says, and wide enough for most tables where there is neither."""
    width = None if sys.stdout.isatty() or os.environ.get("COLUMNS") else REPORT_COLUMNS
    return Console(highlight=False, width=width)


def _fail(message: str, code: int) -> NoReturn:
    print(message, file=sys.stderr)
    raise typer.Exit(code)


def main() -> None:
    try:
        app()
    except SystemExit as end:
        session = sys.modules.get("testbed.emulation.ray_session")
        if session is not None and session.is_stuck():
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(end.code if isinstance(end.code, int) else EXIT_INVALID)
        raise
