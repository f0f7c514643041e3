"""A list of expectations from a file of its own -> what it expects of a scenario that was run."""

from __future__ import annotations

from pathlib import Path as FilePath

from testbed.documents.problems import Path, Problem, ScenarioError
from testbed.documents.source import read_source
from testbed.scenario.loading import load_source
from testbed.scenario.values import Expectation

_EXPECT: Path = ("spec", "expect")
_BEGINS_WITH = "- {metric: success_rate, atLeast: 99%}"


def load(file: FilePath, scenario: FilePath) -> tuple[Expectation, ...]:
    """As `testbed.scenario.load_expectations`."""
    wanted = read_source(file, _BEGINS_WITH)
    where: Path = () if isinstance(wanted.data, list) else _EXPECT
    if not wanted.exists(where) or not isinstance(wanted.value(where), list):
        message = f"is neither a list of expectations (`{_BEGINS_WITH}`) nor a scenario with such a list as spec.expect"
        raise ScenarioError([*wanted.problems, Problem(str(file), 1, 1, "", message)])
    source = read_source(scenario)
    source.graft(_EXPECT, wanted, where)
    source.problems += wanted.problems
    return load_source(source, scenario.parent).expectations
