"""The scenario language: one YAML file to one frozen Scenario, or every reason why not.

Owns the language and its errors. What a scenario's values do is `control`, `faults` and `emulation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from testbed.documents.problems import Problem, ScenarioError
from testbed.scenario.values import (
    Expectation,
    ExpectedShares,
    LoadSource,
    LoadSpec,
    Price,
    Prices,
    RecoveryRule,
    RequestSpec,
    Scenario,
)

__all__ = [
    "Expectation",
    "ExpectedShares",
    "LoadSource",
    "LoadSpec",
    "Price",
    "Prices",
    "Problem",
    "RecoveryRule",
    "RequestSpec",
    "Scenario",
    "ScenarioError",
    "json_schema",
    "load_expectations",
    "load_scenario",
]

# These functions import on their first call: whoever only receives a Scenario must not load Pydantic and PyYAML.


def load_scenario(
    path: Path, overrides: Sequence[str] = (), seed: int | None = None, *, programs_here: bool = False
) -> Scenario:
    """Read and check a scenario file. `overrides` are `path=value`; `seed` takes the place of `spec.seed`.

    `programs_here` asks for the pods' commands to be on this machine.

    Raises ScenarioError with all problems at once.
    """
    from testbed.scenario.loading import load

    return load(path, overrides, seed, programs_here=programs_here)


def load_expectations(file: Path, scenario: Path) -> tuple[Expectation, ...]:
    """Read and check what a file expects of a resolved scenario: a list of expectations, or a scenario with one.

    Raises ScenarioError with all problems at once.
    """
    from testbed.scenario import expectations

    return expectations.load(file, scenario)


def json_schema() -> dict[str, Any]:
    """JSON Schema of a scenario file, for editors."""
    from testbed.scenario import schema

    return schema.json_schema()
