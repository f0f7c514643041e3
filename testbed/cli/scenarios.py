"""What commands that take a scenario file have in common: its options, and the way to a Scenario."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from testbed.cli.completion import complete_scenario
from testbed.cli.terminal import EXIT_BAD_INPUT, fail
from testbed.scenario import Scenario, ScenarioError, load_scenario

if TYPE_CHECKING:
    from testbed.control.dry_run import DryRun

ScenarioFile = Annotated[
    Path,
    typer.Argument(metavar="FILE", help="A scenario file; - for standard input.", autocompletion=complete_scenario),
]
Overrides = Annotated[
    list[str], typer.Option("--set", metavar="PATH=VALUE", help="Override a key: spec.load.duration=20s. Repeatable.")
]
Watched = Annotated[
    bool, typer.Option("--watch", help="Serve a page that shows it as it happens, to who has the link, on loopback.")
]
Seed = Annotated[int | None, typer.Option("--seed", help="In place of the scenario's own seed.")]


def load(file: Path, overrides: list[str], seed: int | None, *, programs_here: bool = False) -> Scenario:
    try:
        return load_scenario(file, overrides, seed, programs_here=programs_here)
    except ScenarioError as error:
        fail("\n".join(str(problem) for problem in error.problems), EXIT_BAD_INPUT)


def dry_run(file: Path, scenario: Scenario) -> DryRun:
    """The cluster as it comes up when nothing goes wrong; ends where a run would have no addresses for it."""
    from testbed.control.dry_run import DryRun
    from testbed.network.addresses.backend import AddressesExhausted
    from testbed.network.addresses.loopback import LoopbackNetwork

    try:
        network = LoopbackNetwork(1, [place.name for place in scenario.topology.places])
        return DryRun(scenario.cluster, network.allocate_pod, network.relay_listener)
    except AddressesExhausted as error:
        fail(f"{file}: {error}", EXIT_BAD_INPUT)


def warn(scenario: Scenario) -> None:
    for problem in scenario.warnings:
        print(problem, file=sys.stderr)
