"""A malformed scenario gives every reason at once, each with its place and what would be right."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from testbed.scenario import ScenarioError, load_scenario

MALFORMED = Path(__file__).parent / "malformed"


@pytest.mark.parametrize("name", sorted(path.stem for path in MALFORMED.glob("*.yaml")))
def test_all_errors_of_a_malformed_scenario_are_reported_in_one_go(
    name: str, golden: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(MALFORMED)
    with pytest.raises(ScenarioError) as caught:
        load_scenario(Path(f"{name}.yaml"))
    golden(f"{name}.txt", f"{caught.value}\n")


def test_problems_are_sorted_by_line_and_survive_pickling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(MALFORMED)
    with pytest.raises(ScenarioError) as caught:
        load_scenario(Path("wrong-types.yaml"))
    lines = [problem.line for problem in caught.value.problems]
    assert lines == sorted(lines)
    assert pickle.loads(pickle.dumps(caught.value)).problems == caught.value.problems


def problem_of(path: Path) -> str:
    with pytest.raises(ScenarioError) as caught:
        load_scenario(path)
    (problem,) = caught.value.problems
    return problem.message


def test_a_file_that_cannot_be_read_is_a_scenario_error(tmp_path: Path) -> None:
    assert problem_of(tmp_path / "none.yaml") == "cannot be read: No such file or directory"
    assert problem_of(tmp_path) == "cannot be read: Is a directory"
    assert problem_of(Path("nul\0.yaml")) == "cannot be read: embedded null byte"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: \xff", "is not UTF-8 text: invalid start byte"),
        (b"a: \x00", "is not valid YAML: the character #x0000 is not allowed"),
        (b"a: " + b"x" * 2_000_000, "is larger than 1000000 bytes"),
        (rb'a: "\UFFFFFFFF"', "is not valid YAML: "),
        (b"[" * 100_000, "is not valid YAML: nested deeper than 40 levels"),
        (b"", "is empty; such a file begins with `apiVersion: testbed/v1`"),
    ],
)
def test_content_that_is_no_yaml_document_is_a_scenario_error(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "s.yaml"
    path.write_bytes(content)
    assert problem_of(path).startswith(message)
