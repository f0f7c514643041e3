"""`testbed sweep`: variants of a scenario times seeds, a run each, and the comparison of all."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from testbed.cli.compare import show_comparison
from testbed.cli.scenarios import ScenarioFile, dry_run
from testbed.cli.terminal import EXIT_BAD_INPUT, EXIT_INVALID, console, fail
from testbed.emulation.driver.interrupts import EXIT_INTERRUPTED, Interrupts
from testbed.scenario import Problem, Scenario, ScenarioError, load_scenario

if TYPE_CHECKING:
    from testbed.sweep.variants import Variant

_BRING_UP_S = 15.0
"""What a run takes beside its load, as long as none has shown it."""


def sweep(
    file: ScenarioFile,
    overrides: Annotated[
        list[str],
        typer.Option(
            "--set",
            metavar="PATH=V1,V2...",
            help="Override a key, with one value for each variant. Several: all combinations.",
        ),
    ] = [],  # noqa: B006 - typer copies it
    repeat: Annotated[
        int, typer.Option("--repeat", min=1, max=1000, help="How many seeds each variant is run with.")
    ] = 5,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="The first seed. Default: the scenario's.")] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="The folder of the sweep. Default: runs/<name>-sweep."),
    ] = None,
    address: Annotated[
        str | None, typer.Option("--address", envvar="RAY_ADDRESS", help="An existing Ray, as for run.")
    ] = None,
    machines: Annotated[int, typer.Option("--machines", min=1, help="As for run.")] = 1,
    machines_per_run: Annotated[
        int | None,
        typer.Option(
            "--machines-per-run",
            min=1,
            metavar="K",
            help="With --address: how many machines carry a run. Default: as few as can.",
        ),
    ] = None,
    hosting: Annotated[Literal["actor", "node"] | None, typer.Option("--hosting", help="As for run.")] = None,
) -> None:
    """Run every variant with every seed, and tell which variants differ by more than chance.

    One after the other on one machine, side by side on a Ray cluster with room for several runs. The same command
    again goes on where it was ended.
    """
    if machines > 1 and address is None:
        fail("--machines: only a Ray cluster has several; name it with --address", EXIT_BAD_INPUT)
    if machines_per_run is not None and address is None:
        fail("--machines-per-run: only a Ray cluster has several; name it with --address", EXIT_BAD_INPUT)
    from testbed.cli.lanes import cluster_lanes, lane_here
    from testbed.cli.sweeping import Sweeping
    from testbed.sweep.folder import Plan, SweepFolder, SweepRefused
    from testbed.sweep.variants import BadVariants, variants

    try:
        planned = variants(overrides)
    except BadVariants as error:
        fail("\n".join(error.problems), EXIT_BAD_INPUT)
    scenarios = _checked(file, planned, seed, programs_here=address is None)
    first = scenarios[0]
    plan = Plan(first.name, planned, first.seed, repeat)
    texts = {variant.name: each.resolved_yaml() for variant, each in zip(planned, scenarios, strict=True)}
    path = (out or Path("runs") / f"{first.name}-sweep").expanduser().resolve()
    try:
        folder = SweepFolder.begun(path, plan, texts)
    except SweepRefused as error:
        fail(str(error), EXIT_BAD_INPUT)
    options = [] if hosting is None else [f"--hosting={hosting}"]
    guess_s = max(each.load.duration_s for each in scenarios) + _BRING_UP_S
    interrupts = Interrupts()
    interrupts.install()
    try:
        with folder, ExitStack() as connected:
            lanes = [lane_here()]
            if address is not None and folder.due():
                opened = cluster_lanes(scenarios, address, machines, hosting, machines_per_run, interrupts)
                lanes = connected.enter_context(opened)
            Sweeping(folder, lanes, options, guess_s, console()).carry_out()
    except KeyboardInterrupt:
        fail("interrupted", EXIT_INTERRUPTED)
    show_comparison(folder.compared_runs(), path)
    valid = {each.run.variant for each in folder.ended if each.is_complete}
    if without := [name for name in plan.names if name not in valid]:
        fail(f"no run of {', '.join(without)} is valid", EXIT_INVALID)


def _checked(file: Path, planned: Sequence[Variant], seed: int | None, *, programs_here: bool) -> list[Scenario]:
    """The scenario of each variant; ends with everything that is wrong with any of them."""
    scenarios: dict[str, Scenario] = {}
    found: dict[str, list[str]] = {}
    for variant in planned:
        problems: Sequence[Problem]
        try:
            scenario = load_scenario(file, variant.overrides, seed, programs_here=programs_here)
            scenarios[variant.name] = scenario
            problems = scenario.warnings
        except ScenarioError as error:
            problems = error.problems
        for problem in problems:
            found.setdefault(str(problem), []).append(variant.name)
    for text, names in found.items():
        which = "" if len(names) == len(planned) else f" (in {', '.join(names)})"
        print(f"{text}{which}", file=sys.stderr)
    if any(len(names) < len(planned) for names in found.values()):
        for variant in planned:
            print(f"{variant.name} is {', '.join(variant.varied)}", file=sys.stderr)
    if len(scenarios) < len(planned):
        raise typer.Exit(EXIT_BAD_INPUT)
    alike: dict[str, list[str]] = {}
    for name, scenario in scenarios.items():
        dry_run(file, scenario)
        alike.setdefault(scenario.resolved_yaml(), []).append(name)
    if same := [names for names in alike.values() if len(names) > 1]:
        fail("\n".join(f"{' and '.join(names)} are the same scenario" for names in same), EXIT_BAD_INPUT)
    return list(scenarios.values())
