"""Programs of pods that are not on the machine where they will run are bad input, not a cluster that never comes up."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.scenario import ScenarioError, load_scenario

SMALL = Path(__file__).parents[1] / "emulation" / "scenarios" / "small.yaml"
WEB = "spec.services.web"


def problems(*overrides: str) -> list[tuple[str, str]]:
    try:
        load_scenario(SMALL, overrides, programs_here=True)
    except ScenarioError as error:
        return [(problem.path, problem.message) for problem in error.problems]
    return []


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("no-such-program", "there is no program 'no-such-program' in PATH on this machine"),
        ("/no/such/file", "there is no file '/no/such/file' on this machine"),
        ("/etc/passwd", "'/etc/passwd' cannot be executed on this machine"),
        ("/tmp", "'/tmp' cannot be executed on this machine"),
    ],
)
def test_a_program_that_cannot_be_started_here_is_reported(program: str, message: str) -> None:
    assert problems(f"{WEB}.workload={{command: [{program}]}}") == [(f"{WEB}.workload.command[0]", message)]
    probe = f"{WEB}.livenessProbe={{exec: {{command: [{program}, -v]}}}}"
    assert problems(probe) == [(f"{WEB}.livenessProbe.exec.command[0]", message)]


@pytest.mark.parametrize("program", ["sh", "/bin/sh", "$(SHELL_OF_MINE)", "python3"])
def test_a_program_that_is_here_or_is_known_in_the_pod_only_is_accepted(program: str) -> None:
    assert problems(f"{WEB}.workload={{command: ['{program}'], env: {{SHELL_OF_MINE: sh}}}}") == []


def test_the_path_of_the_pod_is_what_is_searched(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("#!/bin/sh\n")
    mine.chmod(0o755)
    command = f"{WEB}.workload={{command: [mine]}}"
    assert problems(command, f"{WEB}.workload.env.PATH='{tmp_path}'") == []
    assert problems(command) != []


def test_where_pods_run_elsewhere_their_programs_need_not_be_here() -> None:
    assert load_scenario(SMALL, [f"{WEB}.workload={{command: [no-such-program]}}"])
