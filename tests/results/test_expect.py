"""`testbed report --expect`: a finished run, judged by what somebody expects of it afterwards."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner, Result

from testbed.cli import app
from testbed.results.show.summarize import summarize
from testbed.scenario import load_scenario

ZONE_OUTAGE = Path(__file__).parents[2] / "scenarios" / "zone-outage.yaml"


@pytest.fixture
def finished(run_dir: Path) -> Path:
    (run_dir / "scenario.yaml").write_text(load_scenario(ZONE_OUTAGE).resolved_yaml())
    summarize(run_dir)
    return run_dir


def report(run_dir: Path, file: Path, text: str, *options: str) -> Result:
    file.write_text(text)
    return CliRunner().invoke(app, ["report", str(run_dir), "--expect", str(file), *options])


def content(run_dir: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in run_dir.iterdir() if each.is_file()}


def test_a_list_judges_the_run_and_leaves_the_folder_as_it_is(finished: Path, tmp_path: Path) -> None:
    before = content(finished)
    easy = "- {metric: success_rate, atLeast: 1%}\n- {metric: time_to_recover, fault: lose-east-a, atMost: 1s}\n"
    passed = report(finished, tmp_path / "easy.yaml", easy)
    assert passed.exit_code == 0, passed.output
    assert "held  success_rate at least 1%" in passed.stdout
    hard = "- {metric: time_to_recover, fault: lose-east-a, atMost: 10ms}\n"
    failed = report(finished, tmp_path / "hard.yaml", hard, "--json")
    assert (failed.exit_code, orjson.loads(failed.stdout)["verdict"]) == (1, "failed")
    assert content(finished) == before


def test_a_scenario_judges_by_its_list_and_it_is_kept_if_wanted(finished: Path, tmp_path: Path) -> None:
    text = "spec:\n  nonsense: 1\n  expect: [{metric: success_rate, atLeast: 1%}]\n"
    assert report(finished, tmp_path / "other.yaml", text, "--save").exit_code == 0
    again = CliRunner().invoke(app, ["report", str(finished), "--json"])
    assert [each["text"] for each in orjson.loads(again.stdout)["expectations"]] == ["success_rate at least 1%"]


def test_what_is_wrong_is_told_by_the_line_of_that_file(finished: Path, tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    text = (
        "- {metric: success_rate, atLeast: 0.99}\n"
        "- {metric: time_to_recover, fault: lose-west, atMost: 1s}\n"
        "- {metric: succes_rate, atLeast: 99%}\n"
    )
    result = report(finished, file, text)
    assert (result.exit_code, result.stdout) == (2, "")
    lines = result.stderr.splitlines()
    assert [line.split(": ")[0].rpartition(":")[0] for line in lines] == [f"{file}:{number}" for number in (1, 2, 3)]
    assert "there is no fault or operation 'lose-west'" in lines[1]
    assert "is neither a list of expectations" in report(finished, file, "metadata: {name: x}\n").stderr
    assert "is empty" in report(finished, file, "").stderr
    assert "No such file" in CliRunner().invoke(app, ["report", str(finished), "--expect", "/nowhere"]).stderr
    assert CliRunner().invoke(app, ["report", str(finished), "--save"]).exit_code == 2
