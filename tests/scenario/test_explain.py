"""`testbed explain` and docs/reference.md, which both are the models of the language."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from testbed.cli import app
from testbed.cli.completion import complete_key, complete_run, complete_scenario
from testbed.scenario.reference import reference
from tests.reference import PAGE, page

SMALL = Path(__file__).parents[1] / "emulation" / "scenarios" / "small.yaml"


def explain(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "80"}).invoke(app, ["explain", *arguments])


def test_a_key_is_explained_with_type_default_examples_and_the_keys_below() -> None:
    said = explain("spec.services.workload").stdout
    assert said.startswith("KEY: spec.services.*.workload <mapping>\n")
    assert "    responseSize  <size>  default 0B\n        Size of the response body.\n" in said
    assert max(map(len, said.splitlines())) <= 80
    leaf = explain("spec.load.duration").stdout
    assert "KEY: spec.load.duration <duration > 0>" in leaf
    assert "DEFAULT:\n    40s\n" in leaf
    assert "EXAMPLES:\n    250ms, 20s\n" in leaf


@pytest.mark.parametrize(
    "path", ["spec.services.*.workload.calls", "spec.faults[].at", "spec.faults[0].at", "spec.faults.at"]
)
def test_names_and_numbers_of_items_may_be_left_out(path: str) -> None:
    assert explain(path).exit_code == 0


def test_all_keys_below_can_be_had_with_their_types_only() -> None:
    said = explain("spec.topology", "--recursive").stdout
    assert "        zones  <mapping by name of mappings>  -required-\n            nodes  <" in said


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("spec.servces", "there is no key 'servces' in spec; did you mean 'services'?"),
        ("spec.load.duration.x", "there is no key 'x' in spec.load.duration; it holds no keys"),
        ("kinds", "there is no key 'kinds' in the document; did you mean 'kind'?"),
    ],
)
def test_for_an_unknown_key_the_nearest_one_is_named(path: str, hint: str) -> None:
    said = explain(path)
    assert (said.exit_code, said.stdout, said.stderr) == (2, "", f"{hint}\n")


def test_every_key_says_what_it_is() -> None:
    assert [key.path for key in reference().below if not key.description and not key.about] == []


def test_the_page_is_what_the_models_say() -> None:
    assert PAGE.read_text() == page(), "run `make reference`"


def test_a_scenario_can_come_by_standard_input() -> None:
    said = CliRunner().invoke(app, ["check", "-"], input=SMALL.read_bytes())
    assert (said.exit_code, said.stdout.startswith("-: ok: ")) == (0, True)
    wrong = CliRunner().invoke(app, ["check", "-"], input=b"kind: [")
    assert (wrong.exit_code, wrong.stderr.startswith("-:1:8: is not valid YAML")) == (2, True)


def test_a_shell_completes_scenarios_runs_and_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for file in ("a.yaml", "notes.txt", "sub/b.yml", "runs/r1/facts.json", "runs/old/readme"):
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).touch()
    assert complete_scenario("") == ["a.yaml", "runs/", "sub/"]
    assert complete_scenario("sub/") == ["sub/b.yml"]
    assert complete_run("") == ["runs/old/", "runs/r1"]
    assert complete_run("nowhere/") == []
    assert complete_key("spec.lo") == ["spec.load"]
    assert "apiVersion" in complete_key("")
    assert complete_key("spec.nothing.") == []


def test_completion_is_there_for_shells() -> None:
    asked = {"_TESTBED_COMPLETE": "complete_bash", "COMP_WORDS": "testbed explain spec.serv", "COMP_CWORD": "2"}
    said = CliRunner(env={**os.environ, **asked}).invoke(app, [], prog_name="testbed")
    assert said.stdout.split() == ["spec.services"]
