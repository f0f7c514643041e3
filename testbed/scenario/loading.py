"""The way from a file to a Scenario: read, override, validate, check, complete, convert, schedule, warn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from testbed.control.dry_run import scheduled_pods
from testbed.documents.overrides import override, override_seed
from testbed.documents.problems import ScenarioError, in_order
from testbed.documents.source import Source, read_source
from testbed.scenario.checks.every import check
from testbed.scenario.checks.findings import Findings
from testbed.scenario.checks.programs import check_programs
from testbed.scenario.checks.scheduling import check_scheduling
from testbed.scenario.convert import convert
from testbed.scenario.defaults import complete
from testbed.scenario.validation import validate
from testbed.scenario.values import Scenario
from testbed.scenario.warnings.every import warn


def load(
    path: Path, overrides: Sequence[str] = (), seed: int | None = None, *, programs_here: bool = False
) -> Scenario:
    """As `testbed.scenario.load_scenario`."""
    return load_source(read_source(path), path.parent, overrides, seed, programs_here=programs_here)


def load_source(
    source: Source,
    folder: Path,
    overrides: Sequence[str] = (),
    seed: int | None = None,
    *,
    programs_here: bool = False,
) -> Scenario:
    """The same for a text that is read; paths in it are relative to `folder`."""
    for assignment in overrides:
        override(source, assignment)
    if seed is not None:
        override_seed(source, seed)
    model, dropped = validate(source)
    findings = Findings(source, dropped, folder)
    if model is not None:
        check(model, findings)
        if programs_here:
            check_programs(model, findings)
    if model is None or source.problems:
        raise ScenarioError(source.problems)
    model = complete(model, folder)
    scenario = convert(model)
    pods = scheduled_pods(scenario.cluster)
    check_scheduling(model, pods, findings)
    if source.problems:
        raise ScenarioError(source.problems)
    warn(model, scenario, pods, findings)
    return replace(scenario, warnings=in_order(source.problems))
