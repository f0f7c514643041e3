"""Whatever a run has started ends with it, and its folder goes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from testbed.emulation.processes.janitor import RUN_VARIABLE, Janitor
from tests.emulation.conftest import until
from tests.emulation.writing import written_to

ENDS_WITHIN_S = 60.0
ENV = {"PATH": os.environ["PATH"]}
HIDING = """
import os, sys, time
# As a daemon does, and without an environment: nothing tells whose it is.
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
print(os.getpid(), flush=True)
os.execve("/bin/sleep", ["sleep", "600"], {})
"""
COMMAND = """
import os, sys
from pathlib import Path
from testbed.emulation.processes.janitor import Janitor
janitor = Janitor()
janitor.run(sys.argv[2:], {}, Path(sys.argv[1]), 60.0)
print("done", flush=True)
input()
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "temporary"
    path.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(path))
    monkeypatch.setenv("TMPDIR", str(path))
    return path


@pytest.fixture
def janitor(temporary: Path) -> Janitor:
    """To be dismissed."""
    return Janitor("testbed-of-a-test")


def pid_in(output: Path) -> int:
    assert until(lambda: output.exists() and output.read_text().endswith("\n"), ENDS_WITHIN_S)
    return int(output.read_text())


def test_the_exit_code_of_what_it_runs_is_told(janitor: Janitor, tmp_path: Path) -> None:
    assert janitor.run(["sh", "-c", "echo here; exit 3"], ENV, tmp_path / "output", 10.0) == 3
    assert (tmp_path / "output").read_text() == "here\n"
    janitor.dismiss()


def test_what_takes_too_long_is_not_waited_for_and_ends_with_the_run(janitor: Janitor, tmp_path: Path) -> None:
    output = tmp_path / "output"
    assert janitor.run(["sh", "-c", "echo $$; exec sleep 600"], ENV, output, 0.5) is None
    pid = pid_in(output)
    janitor.dismiss()
    assert not psutil.pid_exists(pid)


def test_a_process_that_nothing_tells_apart_ends_with_the_run_that_started_it(janitor: Janitor, tmp_path: Path) -> None:
    output = tmp_path / "output"
    assert janitor.run([sys.executable, "-c", HIDING], ENV, output, 10.0) == 0
    pid = pid_in(output)
    assert psutil.pid_exists(pid)
    janitor.dismiss()
    assert not psutil.pid_exists(pid)


def test_its_folder_is_closed_to_others_and_goes_with_the_run(janitor: Janitor, temporary: Path) -> None:
    assert list(temporary.iterdir()) == [janitor.folder]
    assert janitor.folder.stat().st_mode & 0o777 == 0o700
    (janitor.folder / "ray").mkdir()
    janitor.dismiss()
    assert not list(temporary.iterdir())


def test_its_folder_goes_though_others_that_end_later_make_files_in_it_meanwhile(
    janitor: Janitor, temporary: Path
) -> None:
    with written_to(janitor.folder):
        janitor.dismiss()
    assert not list(temporary.iterdir())


@pytest.mark.parametrize("script", [HIDING, "import os, time; print(os.getpid(), flush=True); time.sleep(600)"])
def test_a_killed_command_takes_what_it_started_with_it(temporary: Path, tmp_path: Path, script: str) -> None:
    output = tmp_path / "output"
    command = [sys.executable, "-c", COMMAND, str(output), sys.executable, "-c", script]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    pid = pid_in(output)
    assert list(temporary.iterdir())
    process.kill()
    process.communicate()
    assert until(lambda: not psutil.pid_exists(pid), ENDS_WITHIN_S)
    assert until(lambda: not list(temporary.iterdir()), ENDS_WITHIN_S)


def test_marked_processes_that_others_started_end_too(janitor: Janitor) -> None:
    marked = subprocess.Popen(["sleep", "600"], env={**ENV, RUN_VARIABLE: "testbed-of-a-test"})
    janitor.dismiss()
    assert marked.wait(ENDS_WITHIN_S) < 0
