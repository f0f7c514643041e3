"""What is wrong with a machine, given what it and the head say of themselves."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

import testbed.machines.preflight
from testbed.machines.preflight.machines import MachineReport, shortcomings

HEAD = MachineReport(
    python="3.12.4",
    ray="2.60.0",
    zone=None,
    has_ssh=True,
    has_rsync=True,
    has_environment=True,
    makes_environments=True,
    open_token=False,
)


def found(report: MachineReport, head: MachineReport = HEAD, needs_environment: bool = True) -> list[str]:
    return list(shortcomings(report, head, needs_environment))


def test_a_machine_like_the_head_lacks_nothing() -> None:
    assert found(HEAD) == []
    assert found(replace(HEAD, zone="east-a")) == []


def test_versions_have_to_be_the_heads() -> None:
    assert found(replace(HEAD, python="3.12.3")) == [
        "has Python 3.12.3 and the head 3.12.4: Ray wants the same one, patch level included"
    ]
    assert found(replace(HEAD, ray="2.59.1")) == [
        "has Ray 2.59.1 and the head 2.60.0: Ray wants the same one; without ~/testbed-env it is made anew"
    ]


def test_a_machine_on_which_ray_is_not_yet_installed_fits() -> None:
    fresh = replace(HEAD, ray=None, has_environment=False)
    assert found(fresh) == []
    assert found(HEAD, head=fresh) == []


@pytest.mark.parametrize("python", ["3.10.14", "3.14.0rc1"])
def test_a_python_for_which_testbed_is_not_made_is_told_even_when_all_have_it(python: str) -> None:
    old = replace(HEAD, python=python)
    assert found(old, head=old) == [f"has Python {python}: 3.11 to 3.13 is needed"]


def test_a_token_that_others_on_the_machine_may_read_is_told() -> None:
    assert found(replace(HEAD, open_token=True)) == [
        "has a ~/.ray/auth_token that is open to its other users: chmod 600 ~/.ray/auth_token there"
    ]


def test_what_files_are_brought_with_has_to_be_there() -> None:
    assert found(replace(HEAD, has_rsync=False)) == ["has no rsync: apt-get install -y rsync"]


def test_only_the_head_needs_ssh() -> None:
    without = replace(HEAD, has_ssh=False)
    assert found(without, head=without) == [
        "has no ssh to log in to the workers with: apt-get install -y openssh-client"
    ]
    assert found(without) == []


@pytest.mark.parametrize("zone", ["east a", "[/x]", "-a", "\N{REPLACEMENT CHARACTER}"])
def test_what_is_no_name_of_a_zone_is_told(zone: str) -> None:
    assert found(replace(HEAD, zone=zone)) == [
        f"has {zone!r} in ~/.testbed-zone, which is no name of a zone, such as east-a"
    ]


def test_an_environment_that_has_to_be_made_has_to_be_possible() -> None:
    without = replace(HEAD, ray=None, has_environment=False, makes_environments=False)
    assert found(without) == ["cannot make a virtual environment: apt-get install -y python3-venv"]
    assert found(without, needs_environment=False) == []
    assert found(replace(without, has_environment=True)) == []


def test_the_questions_are_answered_by_a_python_without_this_package(tmp_path: Path) -> None:
    (tmp_path / ".testbed-zone").write_text("east-a\n")
    questions = Path(testbed.machines.preflight.__file__).with_name("questions.py").read_bytes()
    answer = subprocess.run(
        [sys.executable, "-I", "-S", "-"],
        input=questions,
        env={"HOME": str(tmp_path), "PATH": ""},
        capture_output=True,
        check=True,
    )
    report = MachineReport(**orjson.loads(answer.stdout)["testbed_preflight"])
    assert report.python == sys.version.split()[0]
    assert (report.ray, report.zone, report.has_environment) == (None, "east-a", False)
    assert not report.has_ssh
    assert not report.has_rsync
