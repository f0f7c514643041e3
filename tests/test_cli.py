"""What the commands say of a scenario, and how they end."""

from __future__ import annotations

import importlib.metadata
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner, Result

from testbed.cli import app
from testbed.cli.terminal import EXIT_BAD_INPUT, EXIT_INVALID
from testbed.emulation.driver.interrupts import RunInterrupted
from tests.emulation.writing import written_to

FILES = Path(__file__).parent / "scenario" / "malformed"
DOUBTFUL = Path(__file__).parent / "scenario" / "doubtful"
SMALL = Path(__file__).parent / "emulation" / "scenarios" / "small.yaml"


@pytest.fixture(autouse=True)
def _signals_as_before() -> Iterator[None]:
    """A run takes them for its process, which is that of the tests here."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize("command", ["check", "render", "run"])
def test_a_gateway_without_a_node_is_bad_input_before_anything_starts(
    command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke(command, FILES / "no-node.yaml")
    assert result.exit_code == EXIT_BAD_INPUT
    assert "no-node.yaml:11:11: spec.topology.regions.east.zones.east-b: its gateway finds no node" in result.stderr
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_an_address_at_which_no_ray_answers_is_bad_input_and_leaves_no_run_folder(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from testbed.cli import main; main()", "run", str(SMALL)]
    done = subprocess.run(
        [*command, "--address", "127.0.0.1:1", "--out", str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == EXIT_BAD_INPUT
    assert "Ray at 127.0.0.1:1 cannot be used" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_what_nobody_expected_is_no_failed_expectation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyError("web-9")

    monkeypatch.setattr("testbed.emulation.driver.experiment.run", fail)
    result = invoke("run", SMALL, "--out", tmp_path, "--quiet")
    assert result.exit_code == EXIT_INVALID
    assert "testbed itself failed, please report it: KeyError: 'web-9'" in result.stderr
    assert "Traceback (most" not in result.stderr
    (log,) = tmp_path.glob("*/logs/testbed.log")
    assert "Traceback (most" in log.read_text()
    (junit,) = tmp_path.glob("*/junit.xml")
    assert "web-9" in junit.read_text()


def test_the_folder_of_a_run_that_measured_nothing_goes_though_actors_still_write_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(scenario: object, run_dir: Path, *_: object) -> None:
        writing.enter_context(written_to(run_dir))
        raise RunInterrupted("nothing was measured")

    monkeypatch.setattr("testbed.emulation.driver.experiment.run", interrupted)
    with ExitStack() as writing:
        result = invoke("run", SMALL, "--out", tmp_path, "--quiet")
    assert (result.exit_code, result.stderr) == (130, "nothing was measured\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("verdict", "code"), [("passed", 0), ("failed", 1), ("invalid", 3), ("interrupted", 130)])
def test_a_run_ends_with_the_exit_code_of_its_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verdict: str, code: int
) -> None:
    summary = SimpleNamespace(verdict=verdict, json=lambda: b"{}")
    monkeypatch.setattr("testbed.emulation.driver.experiment.run", lambda *_: summary)
    result = invoke("run", SMALL, "--out", tmp_path, "--json")
    assert (result.exit_code, result.stdout) == (code, "{}")


def test_the_version_is_told() -> None:
    result = invoke("--version")
    assert (result.exit_code, result.stdout) == (0, f"testbed {importlib.metadata.version('testbed')}\n")


@pytest.mark.parametrize("command", ["check", "run"])
def test_more_places_than_there_are_addresses_for_are_bad_input(
    command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke(command, SMALL, "--set", "spec.topology.regions.east.zones.east-a.nodes=249")
    assert result.exit_code == EXIT_BAD_INPUT
    assert result.stderr.startswith(f"{SMALL}: 251 places")
    assert list(tmp_path.iterdir()) == []


def test_doubts_are_warnings_that_fail_no_check() -> None:
    result = invoke("check", DOUBTFUL / "no-route.yaml")
    assert result.exit_code == 0
    assert result.stdout.endswith("1 nodes, 1 services, 0 faults, 1 warning\n")
    assert "no-route.yaml:8:9: warning: spec.load: no route of the gateway takes /" in result.stderr


def test_a_run_tells_doubts_before_it_starts() -> None:
    result = invoke("run", DOUBTFUL / "no-route.yaml", "--out", "/dev/null/runs")
    assert "cannot make a result folder" in result.stderr.splitlines()[-1]
    assert "warning: spec.load: no route" in result.stderr.splitlines()[0]


@pytest.mark.parametrize("command", ["check", "run"])
def test_a_program_that_is_not_here_is_bad_input_unless_pods_run_elsewhere(
    command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    missing = ("--set", "spec.services.web.workload={command: [no-such-program]}")
    result = invoke(command, SMALL, *missing)
    assert result.exit_code == EXIT_BAD_INPUT
    assert "there is no program 'no-such-program' in PATH on this machine" in result.stderr
    assert list(tmp_path.iterdir()) == []
    assert invoke("check", SMALL, *missing, "--address", "auto").exit_code == 0
