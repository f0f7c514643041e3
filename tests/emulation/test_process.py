"""Children are watched, ended with all that they started, and never outlive their parent."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from testbed.emulation.processes.process import ChildProcess, kill_marked, last_lines
from tests.emulation.loopback import DEADLINE_S, eventually

ENV = {"PATH": os.environ["PATH"]}
PARENT = """
import asyncio, sys
from pathlib import Path
from testbed.emulation.processes.process import ChildProcess

async def main():
    child = ChildProcess(["sleep", "60"], env={}, output=Path(sys.argv[1]))
    print(child.pid, flush=True)
    await child.wait()

asyncio.run(main())
"""


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, DEADLINE_S))


def shell(script: str, output: Path, codes: list[int] | None = None) -> ChildProcess:
    return ChildProcess(["sh", "-c", script], env=ENV, output=output, on_exit=None if codes is None else codes.append)


def alive(pid: int) -> bool:
    """Whether the process runs; one that ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def said(output: Path) -> str:
    """The first line that the child wrote."""
    await eventually(lambda: output.exists() and b"\n" in output.read_bytes())
    return output.read_text().splitlines()[0]


@pytest.mark.parametrize("own", [True, False])
def test_a_child_has_a_share_of_its_own_only_where_it_is_to(own: bool, tmp_path: Path) -> None:
    async def scenario() -> None:
        child = ChildProcess(["sleep", "60"], env=ENV, output=tmp_path / "log", own_session=own)
        assert os.getpgid(child.pid) == child.pid
        assert os.getsid(child.pid) == (child.pid if own else os.getsid(0))
        child.kill()
        await child.wait()

    run(scenario())


def test_the_exit_code_is_reported_once(tmp_path: Path) -> None:
    codes: list[int] = []

    async def scenario() -> None:
        child = shell("exit 3", tmp_path / "log", codes)
        assert child.running
        assert await child.wait() == 3
        assert not child.running
        child.kill()
        await child.terminate(grace_s=1.0)
        assert await child.wait() == 3

    run(scenario())
    assert codes == [3]


def test_output_and_errors_are_appended_to_their_files(tmp_path: Path) -> None:
    async def scenario() -> None:
        for _ in range(2):
            both, errors = tmp_path / "both", tmp_path / "errors"
            await shell("echo out; echo err >&2", both).wait()
            await ChildProcess(
                ["sh", "-c", "echo out; echo err >&2"], env=ENV, output=tmp_path / "out", errors=errors
            ).wait()

    run(scenario())
    assert (tmp_path / "both").read_text() == "out\nerr\n" * 2
    assert (tmp_path / "out").read_text() == "out\n" * 2
    assert (tmp_path / "errors").read_text() == "err\n" * 2


def test_a_child_with_pipes_can_be_talked_to(tmp_path: Path) -> None:
    async def scenario() -> None:
        child = ChildProcess(["cat"], env=ENV, output=tmp_path / "log", pipes=True)
        with child.stdin as stdin, child.stdout as stdout:
            stdin.write(b"hello\n")
            stdin.flush()
            assert stdout.readline() == b"hello\n"
        assert await child.wait() == 0

    run(scenario())


def test_kill_ends_the_whole_process_group(tmp_path: Path) -> None:
    codes: list[int] = []

    async def scenario() -> None:
        child = shell("sleep 60 & echo $!; wait", tmp_path / "log", codes)
        grandchild = int(await said(tmp_path / "log"))
        assert alive(grandchild)
        child.kill()
        assert await child.wait() == -signal.SIGKILL
        await eventually(lambda: not alive(grandchild))

    run(scenario())
    assert codes == [-signal.SIGKILL]


def test_a_child_that_exits_leaves_no_grandchild_behind(tmp_path: Path) -> None:
    async def scenario() -> None:
        child = shell("sleep 60 & echo $!", tmp_path / "log")
        assert await child.wait() == 0
        grandchild = int(await said(tmp_path / "log"))
        await eventually(lambda: not alive(grandchild))

    run(scenario())


def test_terminate_lets_a_child_end_in_good_order(tmp_path: Path) -> None:
    async def scenario() -> None:
        child = shell("trap 'exit 7' TERM; echo ready; sleep 60 & wait", tmp_path / "log")
        await said(tmp_path / "log")
        await child.terminate(grace_s=DEADLINE_S)
        assert await child.wait() == 7

    run(scenario())


def test_terminate_kills_a_child_that_does_not_listen(tmp_path: Path) -> None:
    async def scenario() -> None:
        child = shell("trap '' TERM; echo ready; sleep 60", tmp_path / "log")
        await said(tmp_path / "log")
        await child.terminate(grace_s=0.1)
        assert await child.wait() == -signal.SIGKILL

    run(scenario())


def test_a_child_dies_when_its_parent_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path / "log")], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert alive(child)
        parent.kill()
        run(eventually(lambda: not alive(child)))


def test_a_program_that_does_not_exist_raises_os_error(tmp_path: Path) -> None:
    codes: list[int] = []

    async def scenario() -> None:
        with pytest.raises(OSError, match="no-such-program"):
            ChildProcess(["/no-such-program"], env=ENV, output=tmp_path / "log", on_exit=codes.append)

    run(scenario())
    assert codes == []


def test_last_lines_are_the_last_that_are_not_empty(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"one\n  two \n\nthr\xffee\n \nfour\n\n")
    assert last_lines(log) == "two | thr\ufffdee | four"
    assert last_lines(log, count=1) == "four"


def test_last_lines_of_a_file_that_is_empty_or_missing_are_nothing(tmp_path: Path) -> None:
    (tmp_path / "log").touch()
    assert last_lines(tmp_path / "log") == last_lines(tmp_path / "missing") == ""


def test_only_processes_with_the_marker_are_killed() -> None:
    variable, value = "TESTBED_TEST_MARK", uuid4().hex
    values = (value, value, value + "0", None)
    processes = [
        subprocess.Popen(["sleep", "60"], env=ENV | ({} if mark is None else {variable: mark})) for mark in values
    ]
    try:
        assert kill_marked(variable, value) == 2
        assert [process.wait(DEADLINE_S) for process in processes[:2]] == [-signal.SIGKILL] * 2
        assert [process.poll() for process in processes[2:]] == [None, None]
        assert kill_marked(variable, value) == 0
    finally:
        for process in processes:
            process.kill()
            process.wait()
