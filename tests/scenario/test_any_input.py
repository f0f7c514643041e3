"""Whatever a file holds, loading it gives a Scenario or a ScenarioError, and nothing else."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from testbed.scenario import Problem, Scenario, ScenarioError, load_scenario

SHIPPED = sorted((Path(__file__).parents[2] / "scenarios").glob("*.yaml"))
TEXTS = [path.read_text() for path in SHIPPED]
TREES = [yaml.safe_load(text) for text in TEXTS]

PYDANTICS = re.compile(
    "[Ii]nput should|[Ii]nput was|valid (dict|tuple|string|list|int|bool|float)|instance of|[Vv]alue error|[Ff]ield "
    "required|[Ee]xtra inputs|[Ss]hould (be|have) |type=|pydantic|[Mm]odel\\b"
)
"""Words of the library, not of people who write scenarios."""

quick = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))

words = st.sampled_from(
    ["spec", "east-a", "web", "*", "10s", "5%", "kill", "name", "on", "12:30", "~", "1e3", "1/s", ""]
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | words | st.text(max_size=8)
trees = st.recursive(
    scalars,
    lambda t: st.lists(t, max_size=3) | st.dictionaries(words | st.text(max_size=5), t, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("any") / "scenario.yaml"


def load(file: Path, content: bytes, *overrides: str) -> Scenario | None:
    """Every problem is one line and says where it is; every scenario loads again from what it resolves to."""
    file.write_bytes(content)
    problems: tuple[Problem, ...] = ()
    try:
        scenario = load_scenario(file, overrides)
    except ScenarioError as error:
        problems = error.problems
        scenario = None
    if scenario is None:
        assert problems
        for problem in problems:
            assert problem.message
            assert not PYDANTICS.search(problem.message)
            assert len(str(problem).splitlines()) == 1
            assert problem.line > 0 or problem.file.startswith("--set ")
        return None
    file.write_text(scenario.resolved_yaml(), encoding="utf-8")
    assert load_scenario(file) == scenario
    return scenario


@quick
@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes(file: Path, content: bytes) -> None:
    load(file, content)


@quick
@given(st.text(alphabet="ab:{}[]-,&*!|>'\"%#?\n \\xuU01<", max_size=40))
def test_any_text_of_yaml_characters(file: Path, text: str) -> None:
    load(file, text.encode())


@quick
@given(trees)
def test_any_structure(file: Path, tree: Any) -> None:
    load(file, yaml.safe_dump(tree).encode("utf-8", "surrogatepass"))


def paths(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path, *(deeper for key, value in items for deeper in paths(value, (*path, key)))]


@settings(quick, max_examples=150)
@given(st.sampled_from(TREES), st.data())
def test_any_change_of_a_shipped_scenario(file: Path, tree: Any, data: st.DataObject) -> None:
    tree = copy.deepcopy(tree)
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(paths(tree)[1:]))
        around = tree
        for part in path[:-1]:
            around = around[part]
        match data.draw(st.sampled_from(["replace", "remove", "rename", "graft"])):
            case "replace":
                around[path[-1]] = data.draw(trees)
            case "remove":
                del around[path[-1]]
            case "rename" if isinstance(around, dict):
                around[data.draw(words | st.text(max_size=5))] = around.pop(path[-1])
            case _:
                other = tree
                for part in data.draw(st.sampled_from(paths(tree))):
                    other = other[part]
                around[path[-1]] = copy.deepcopy(other)
        if len(paths(tree)) < 2 or len(paths(tree)) > 2000:
            break
    load(file, yaml.safe_dump(tree).encode("utf-8", "surrogatepass"))


@quick
@given(st.sampled_from(TEXTS), st.integers(0, 3000), st.integers(0, 40), st.text(max_size=5))
def test_any_edit_of_the_text_of_a_shipped_scenario(file: Path, text: str, start: int, length: int, new: str) -> None:
    load(file, (text[:start] + new + text[start + length :]).encode("utf-8", "surrogatepass"))


@quick
@given(st.sampled_from(TREES), st.data(), st.text(max_size=10))
def test_any_override(file: Path, tree: Any, data: st.DataObject, value: str) -> None:
    parts = data.draw(st.sampled_from(paths(tree)))
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).removeprefix(".")
    load(file, TEXTS[0].encode(), f"{path}={value}", data.draw(st.text(max_size=10)))
