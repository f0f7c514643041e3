"""The way from a file to a Scenario: read, override, validate, check, complete, convert."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from testbed.scenario.checks import check
from testbed.scenario.convert import convert
from testbed.scenario.defaults import complete
from testbed.scenario.findings import Findings
from testbed.scenario.overrides import override, override_seed
from testbed.scenario.problems import ScenarioError
from testbed.scenario.source import read_source
from testbed.scenario.validation import validate
from testbed.scenario.values import Scenario


def load(path: Path, overrides: Sequence[str] = (), seed: int | None = None) -> Scenario:
    """As `testbed.scenario.load_scenario`."""
    source = read_source(path)
    for assignment in overrides:
        override(source, assignment)
    if seed is not None:
        override_seed(source, seed)
    model, dropped = validate(source)
    if model is not None:
        check(model, Findings(source, dropped, path.parent))
    if model is None or source.problems:
        raise ScenarioError(source.problems)
    return convert(complete(model, path.parent))
