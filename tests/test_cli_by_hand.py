"""Commands to clusters that are up, where there is none, or several, or none of that name, and what they refuse."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner, Result

from testbed.cli import app
from testbed.cli.terminal import EXIT_BAD_INPUT, EXIT_INVALID
from testbed.emulation.driver import registry

SMALL = Path(__file__).parent / "emulation" / "scenarios" / "small.yaml"
COMMANDS = (
    ("inject", "fault.yaml"),
    ("heal", "gone"),
    ("apply", "mine.yaml"),
    ("logs", "web-1"),
    ("load", "start"),
    ("down",),
)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


@pytest.fixture
def several(tmp_path: Path) -> Iterator[None]:
    """Two clusters that nobody can ask yet."""
    with ExitStack() as there:
        for name in ("one", "two"):
            there.enter_context(registry.registered(name, tmp_path / name, "small"))
        yield


def invoke(*arguments: str | Path, given: str = "") -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=given)


@pytest.mark.parametrize("command", [*COMMANDS, ("status",)])
def test_where_none_is_up_that_is_said(command: tuple[str, ...]) -> None:
    result = invoke(*command)
    assert (result.exit_code, result.stdout) == (EXIT_BAD_INPUT, "")
    assert result.stderr == "no cluster is up; `testbed up FILE` brings one up\n"


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.usefixtures("several")
def test_where_several_are_up_one_has_to_be_named(command: tuple[str, ...]) -> None:
    result = invoke(*command)
    assert (result.exit_code, result.stderr) == (EXIT_BAD_INPUT, "several clusters are up: say which one, one, two\n")
    name, *rest = command
    result = invoke(name, "three", *rest)
    assert (result.exit_code, result.stderr) == (EXIT_BAD_INPUT, "no cluster 'three' is up; there is one, two\n")


@pytest.mark.usefixtures("several")
def test_one_that_starts_or_ends_just_now_is_shown_and_cannot_be_changed() -> None:
    assert invoke("status").stdout == "one: starting, or all but down\ntwo: starting, or all but down\n"
    (only,) = orjson.loads(invoke("status", "two", "--json").stdout)["clusters"]
    assert (only["name"], only["scenario"], "coming_up" in only) == ("two", "small", True)
    result = invoke("heal", "two", "gone")
    assert result.exit_code == EXIT_INVALID
    assert "two cannot be asked" in result.stderr


@pytest.mark.usefixtures("several")
def test_a_name_that_is_taken_is_refused_before_anything_starts(tmp_path: Path) -> None:
    result = invoke("up", SMALL, "--name", "one", "--out", tmp_path / "runs")
    assert result.exit_code == EXIT_BAD_INPUT
    assert result.stderr == "a cluster one is up already; `testbed down one`, or choose another --name\n"
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.mark.usefixtures("several")
def test_a_detached_start_of_a_name_that_is_up_leaves_the_output_of_the_first_alone() -> None:
    log = registry.log_of("one")
    log.write_text("said by the first")
    result = invoke("up", SMALL, "--name", "one", "--detach")
    assert (result.exit_code, result.stdout) == (EXIT_BAD_INPUT, "")
    assert result.stderr == "a cluster one is up already; `testbed down one`, or choose another --name\n"
    assert log.read_text() == "said by the first"


def test_a_detached_start_that_fails_keeps_its_output_and_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which takes the place of that of one that is gone."""
    (tmp_path / "taken").touch()
    registry.log_of("mine").write_text("said by one that is gone" * 99)
    arguments = ["up", str(SMALL), "--name", "mine", "--detach", "--out", str(tmp_path / "taken" / "runs")]
    monkeypatch.setattr("sys.argv", ["testbed", *arguments])
    result = invoke(*arguments)
    assert result.exit_code == EXIT_BAD_INPUT
    said = registry.log_of("mine").read_text()
    assert said.endswith("cannot make a result folder there: Not a directory\n")
    assert result.stderr == f"mine did not come up; what it said is in {registry.log_of('mine')}\n"


def test_at_its_end_a_cluster_removes_its_own_output_and_no_other() -> None:
    log = registry.log_of("mine")
    command = [sys.executable, "-c", "from testbed.cli.up import forget_output; forget_output('mine')"]
    log.write_text("said by one that failed")
    subprocess.run(command, check=True, stdout=subprocess.PIPE)
    assert log.read_text() == "said by one that failed"
    with log.open("wb") as output:
        subprocess.run(command, check=True, stdout=output)
    assert not log.exists()
    subprocess.run(command, check=True)


@pytest.mark.usefixtures("several")
def test_files_that_cannot_be_read_and_arguments_that_make_no_sense_are_bad_input(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"name: \xe9")
    (tmp_path / "huge.yaml").write_bytes(b" " * 1_000_001)
    for arguments, why in (
        (("inject", "one", tmp_path / "none.yaml"), "none.yaml:1:1: cannot be read: No such file or directory"),
        (("inject", "one", tmp_path), ":1:1: cannot be read: Is a directory"),
        (("apply", "one", tmp_path / "latin.yaml"), "latin.yaml:1:1: cannot be read: is not UTF-8 text"),
        (("apply", "one", tmp_path / "huge.yaml"), "huge.yaml:1:1: is larger than 1000000 bytes"),
        (("load", "one", "begin"), "load can be told to start or stop, not 'begin'"),
        (("inject", "one", "two", "three"), "too many arguments: `[NAME] FILE` is wanted, not one two three"),
        (("up", SMALL, "--name", "No Name"), "--name No Name: must be lower-case letters"),
        (("up", tmp_path / "none.yaml"), "none.yaml:1:1: cannot be read"),
        (("up", SMALL, "--machines", "2"), "--machines: only a Ray cluster has several; name it with --address"),
        (("up", SMALL, "--on", "m1,m2"), "--on: only a Ray cluster has several machines; name it with --address"),
    ):
        result = invoke(*arguments)
        assert result.exit_code == EXIT_BAD_INPUT, result.output
        assert why in result.stderr
