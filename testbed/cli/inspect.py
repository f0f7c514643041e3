"""`testbed check`, `render` and `schema`: what a scenario says, without starting anything."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import orjson
import typer
import yaml

from testbed.cli.scenarios import Overrides, ScenarioFile, Seed, dry_run, load, warn
from testbed.cli.terminal import EXIT_BAD_INPUT, fail
from testbed.scenario import Scenario, json_schema

if TYPE_CHECKING:
    from testbed.control.dry_run import DryRun


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
    scenario = load(file, overrides, seed, programs_here=address is None)
    dry_run(file, scenario)
    warn(scenario)
    nodes, services, warnings = len(scenario.topology.nodes), len(scenario.cluster.services), len(scenario.warnings)
    doubts = f", {warnings} warning{'s' if warnings > 1 else ''}" if warnings else ""
    print(f"{file}: ok: {scenario.name}, {nodes} nodes, {services} services, {len(scenario.faults)} faults{doubts}")


def schema() -> None:
    """Print the JSON Schema of scenario files, for editors."""
    sys.stdout.buffer.write(orjson.dumps(json_schema(), option=orjson.OPT_INDENT_2) + b"\n")


def render(
    file: ScenarioFile,
    overrides: Overrides = [],  # noqa: B006
    seed: Seed = None,
    proxy: Annotated[
        str | None, typer.Option("--proxy", metavar="POD", help="Show what the proxy of this pod is told instead.")
    ] = None,
    show_map: Annotated[
        bool, typer.Option("--map", help="Show who owns which partitions instead, and what calls to expect.")
    ] = False,
) -> None:
    """Print the Kubernetes and Istio objects that a scenario becomes, without starting anything."""
    from testbed.control.dry_run import UnknownProxy

    scenario = load(file, overrides, seed)
    cluster = dry_run(file, scenario)
    if show_map:
        _show_map(file, scenario, cluster)
        return
    try:
        documents = cluster.manifests() if proxy is None else cluster.proxy_resources(proxy)
    except UnknownProxy as error:
        fail(str(error), EXIT_BAD_INPUT)
    print(yaml.safe_dump_all(documents, sort_keys=False, width=120), end="")


def _show_map(file: Path, scenario: Scenario, cluster: DryRun) -> None:
    from testbed.scenario.call_plan import call_lines
    from testbed.scenario.cell_plan import cell_plan, lines_of
    from testbed.scenario.question_plan import question_lines

    plan = cell_plan(cluster.store, scenario.load)
    if plan is None:
        fail(f"{file}: has no cells", EXIT_BAD_INPUT)
    more = (*question_lines(scenario), *call_lines(cluster.store, scenario))
    print("\n".join([*lines_of(plan, scenario.load), *more]))
