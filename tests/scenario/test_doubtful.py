"""What can be run but will not show what is wanted gives warnings, each with its place; what is sound gives none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from testbed.scenario import load_scenario

DOUBTFUL = Path(__file__).parent / "doubtful"
ROOT = Path(__file__).parents[2]
SHIPPED = [*(ROOT / "scenarios").glob("*.yaml"), *(ROOT / "tests" / "emulation" / "scenarios").glob("*.yaml")]


@pytest.mark.parametrize("name", sorted(path.stem for path in DOUBTFUL.glob("*.yaml")))
def test_all_doubts_about_a_scenario_are_told_in_one_go(
    name: str, golden: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(DOUBTFUL)
    scenario = load_scenario(Path(f"{name}.yaml"))
    assert {problem.severity for problem in scenario.warnings} == {"warning"}
    golden(f"doubtful-{name}.txt", "".join(f"{problem}\n" for problem in scenario.warnings))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_scenarios_of_this_repository_leave_no_doubt(path: Path) -> None:
    assert load_scenario(path).warnings == ()


@pytest.mark.parametrize("name", sorted(path.stem for path in DOUBTFUL.glob("*.yaml")))
def test_a_resolved_scenario_gives_the_same_warnings(name: str, tmp_path: Path) -> None:
    scenario = load_scenario(DOUBTFUL / f"{name}.yaml")
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(scenario.resolved_yaml())
    again = load_scenario(resolved)
    assert again == scenario
    assert {problem.message for problem in again.warnings} == {problem.message for problem in scenario.warnings}


def test_policies_that_hold_nowhere_are_not_judged() -> None:
    assert load_scenario(DOUBTFUL / "mesh.yaml", ["spec.mesh.mode=none"]).warnings == ()
