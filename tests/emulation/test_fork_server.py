"""Processes that a fork server starts: watched, ended with all that they started, and never without a supervisor."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from testbed.emulation.processes import process
from testbed.emulation.processes.container import BUILTIN_COMMAND, command_line
from testbed.emulation.processes.fork_server import ForkServer, launch
from testbed.emulation.processes.fork_server_process import SETTLES_WITHIN_S, STARTING_A_CORE
from testbed.emulation.processes.forked_process import ForkedProcess, fork_server_socket
from testbed.emulation.processes.janitor import RUN_VARIABLE, Janitor
from testbed.emulation.processes.probes import http_status
from testbed.network.addresses.loopback import LoopbackBlock, LoopbackNetwork
from testbed.objects.addresses import PodAddress
from testbed.objects.core import Pod
from testbed.objects.workloads import BuiltinWorkload, PodTemplate
from tests.emulation.forking import forking
from tests.emulation.loopback import DEADLINE_S, eventually
from tests.emulation.test_process import alive, said

ENV = {"PATH": os.environ["PATH"]}
SUPERVISOR = """
import asyncio, sys
from pathlib import Path
from testbed.emulation.processes.fork_server_process import SETTLES_WITHIN_S, STARTING_A_CORE
from testbed.emulation.processes.forked_process import ForkedProcess

async def main():
    child = ForkedProcess(
        Path(sys.argv[1]), ["/bin/sh", "-c", "sleep 60 & echo $!; wait"], env={}, output=Path(sys.argv[2])
    )
    print(await child.started(), flush=True)
    await child.wait()

asyncio.run(main())
"""


def shell(server: Path, script: str, codes: list[int] | None = None) -> ForkedProcess:
    """Its output goes into the folder in which the server's socket is."""
    told = None if codes is None else codes.append
    return ForkedProcess(server, ["sh", "-c", script], env=ENV, output=server.parent / "log", on_exit=told)


def nicer(by: int) -> int:
    return min(19, os.nice(0) + by)


async def test_the_exit_code_is_told_once(fork_server: Path) -> None:
    codes: list[int] = []
    child = shell(fork_server, "exit 3", codes)
    assert child.running
    assert await child.started() > 0
    assert await child.wait() == 3
    assert not child.running
    await child.kill()
    await child.terminate(grace_s=1.0)
    assert await child.wait() == 3
    assert codes == [3]


async def test_the_end_by_a_signal_is_its_negative_number(fork_server: Path) -> None:
    child = shell(fork_server, "kill -SEGV $$")
    assert await child.wait() == -signal.SIGSEGV


async def test_output_and_errors_are_appended_to_their_files(fork_server: Path, tmp_path: Path) -> None:
    both, out, errors = (tmp_path / name for name in ("both", "out", "errors"))
    for _ in range(2):
        for output, other in ((both, None), (out, errors)):
            command = ["sh", "-c", "echo out; echo err >&2"]
            assert await ForkedProcess(fork_server, command, env=ENV, output=output, errors=other).wait() == 0
    assert both.read_text() == "out\nerr\n" * 2
    assert (out.read_text(), errors.read_text()) == ("out\n" * 2, "err\n" * 2)


async def test_a_program_has_its_own_environment_group_and_niceness_and_nothing_open(
    fork_server: Path, tmp_path: Path
) -> None:
    looking = (
        "import json, os, signal; os.listdir('/proc/self/fd'); print(json.dumps([dict(os.environ), "
        "os.getpgid(0) == os.getpid(), os.nice(0), sorted(map(int, os.listdir('/proc/self/fd')))[:-1], "
        "open('/proc/self/status').read().split('SigBlk:')[1].split()[0]]))"
    )
    env = {"ONLY": "this", "LC_CTYPE": "C.UTF-8"}
    command = [sys.executable, "-c", looking]
    child = ForkedProcess(fork_server, command, env=env, output=tmp_path / "log", niceness=7)
    assert await child.wait() == 0
    blocked = "0" * 16
    assert json.loads((tmp_path / "log").read_text()) == [env, True, nicer(7), [0, 1, 2], blocked]


async def test_kill_ends_the_whole_process_group(fork_server: Path, tmp_path: Path) -> None:
    codes: list[int] = []
    child = shell(fork_server, "sleep 60 & echo $!; wait", codes)
    grandchild = int(await said(tmp_path / "log"))
    assert alive(grandchild)
    await child.kill()
    assert await child.wait() == -signal.SIGKILL
    await eventually(lambda: not alive(grandchild))
    assert codes == [-signal.SIGKILL]


async def test_a_kill_that_comes_before_the_program_is_started_is_a_kill_of_it(fork_server: Path) -> None:
    child = shell(fork_server, "sleep 60")
    await child.kill()
    assert await child.wait() == -signal.SIGKILL


async def test_a_process_that_ends_leaves_nobody_of_its_group_behind(fork_server: Path, tmp_path: Path) -> None:
    child = shell(fork_server, "sleep 60 & echo $!")
    assert await child.wait() == 0
    grandchild = int(await said(tmp_path / "log"))
    await eventually(lambda: not alive(grandchild))


async def test_terminate_lets_it_end_in_good_order_and_kills_what_does_not_listen(
    fork_server: Path, tmp_path: Path
) -> None:
    listening = shell(fork_server, "trap 'exit 7' TERM; echo ready; sleep 60 & wait")
    await said(tmp_path / "log")
    await listening.terminate(grace_s=DEADLINE_S)
    assert await listening.wait() == 7
    deaf = ForkedProcess(
        fork_server, ["sh", "-c", "trap '' TERM; echo ready; sleep 60"], env=ENV, output=tmp_path / "deaf"
    )
    await said(tmp_path / "deaf")
    await deaf.terminate(grace_s=0.1)
    assert await deaf.wait() == -signal.SIGKILL


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["/no-such-program"], "[Errno 2] No such file or directory: '/no-such-program'"),
        (["no-such-program"], "[Errno 2] No such file or directory: 'no-such-program'"),
        (["/etc/passwd"], "[Errno 13] Permission denied: '/etc/passwd'"),
    ],
)
async def test_what_cannot_be_started_says_why_as_it_would_here(
    fork_server: Path, tmp_path: Path, command: list[str], words: str
) -> None:
    codes: list[int] = []
    child = ForkedProcess(fork_server, command, env=ENV, output=tmp_path / "log", on_exit=codes.append)
    with pytest.raises(OSError, match="Errno") as error:
        await child.started()
    with pytest.raises(type(error.value)) as here:
        subprocess.run(command, env=ENV)
    assert str(error.value) == str(here.value) == words
    await child.wait()
    assert codes == []


async def test_a_log_that_cannot_be_written_is_why_it_was_not_started(fork_server: Path, tmp_path: Path) -> None:
    child = ForkedProcess(fork_server, ["true"], env=ENV, output=tmp_path / "none" / "log")
    with pytest.raises(FileNotFoundError, match="none/log"):
        await child.started()
    await child.wait()


async def test_a_supervisor_that_is_killed_takes_its_processes_with_it_and_nobody_elses(
    fork_server: Path, tmp_path: Path
) -> None:
    other = shell(fork_server, "sleep 60")
    command = [sys.executable, "-c", SUPERVISOR, str(fork_server), str(tmp_path / "theirs")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as supervisor:
        assert supervisor.stdout is not None
        child, grandchild = int(supervisor.stdout.readline()), int(await said(tmp_path / "theirs"))
        assert alive(child)
        assert alive(grandchild)
        supervisor.kill()
        await eventually(lambda: not alive(child) and not alive(grandchild))
    assert other.running
    await other.kill()
    await other.wait()


def builtin_pod(folder: Path, address: PodAddress) -> tuple[list[str], dict[str, str]]:
    pod = Pod("web-1", "web", PodTemplate("web", BuiltinWorkload(), mesh_mode="none"), node="a")
    return command_line(pod, address, 1, {}, folder)


async def test_the_built_in_workload_is_a_fork_with_its_own_name_environment_and_end(
    fork_server: Path, tmp_path: Path
) -> None:
    with LoopbackBlock.reserve() as block:
        address = LoopbackNetwork(block.second_octet, ["a"]).allocate_pod("a", 8080)
        command, env = builtin_pod(tmp_path, address)
        assert tuple(command) == BUILTIN_COMMAND
        child = ForkedProcess(fork_server, command, env=env, output=tmp_path / "log", niceness=5)
        seen = psutil.Process(await child.started())
        assert (seen.name(), " ".join(seen.cmdline()).strip()) == ("web-1", f"{' '.join(command)} web-1")
        assert (os.getpgid(seen.pid), seen.nice()) == (seen.pid, nicer(5))
        await eventually(lambda: seen.net_connections("tcp4"))
        assert [each.laddr for each in seen.net_connections("all") if each.laddr] == [(address.app.ip, 8080)]
        assert await http_status(address.app, "/healthz", DEADLINE_S) == 200
        await child.terminate(grace_s=DEADLINE_S)
        assert await child.wait() == 0
    assert (tmp_path / "log").read_bytes() == b""


async def test_a_built_in_workload_that_fails_ends_with_its_traceback(fork_server: Path, tmp_path: Path) -> None:
    child = ForkedProcess(fork_server, BUILTIN_COMMAND, env={}, output=tmp_path / "log")
    assert await child.wait() == 1
    assert process.last_lines(tmp_path / "log", 1) == "KeyError: 'TESTBED_WORKLOAD'"


async def test_the_end_of_a_server_is_that_of_its_processes_and_is_told(tmp_path: Path) -> None:
    janitor = Janitor()
    try:
        launch(janitor, janitor.folder, {**ENV, RUN_VARIABLE: janitor.run_id}, tmp_path / "server.log")
        lost: list[str] = []
        owner = ForkServer("the fork server", tmp_path / "server.log", lost.append)
        owner.own(janitor.folder)
        codes: list[int] = []
        child = ForkedProcess(
            fork_server_socket(janitor.folder), ["sleep", "60"], env=ENV, output=tmp_path / "log", on_exit=codes.append
        )
        pid = await child.started()
        server = psutil.Process(pid).parent()
        assert server is not None
        server.kill()
        assert await child.wait() == -signal.SIGKILL
        await eventually(lambda: lost and not alive(pid))
        assert (codes, lost) == ([-signal.SIGKILL], ["the fork server died"])
        with pytest.raises(OSError, match="the fork server of this machine has ended"):
            shell(fork_server_socket(janitor.folder), "true")
        await owner.stop()
    finally:
        janitor.dismiss()


async def test_a_server_ends_with_its_owner_and_hides_nothing_from_the_janitor(tmp_path: Path) -> None:
    janitor = Janitor()
    try:
        launch(janitor, janitor.folder, {**ENV, RUN_VARIABLE: janitor.run_id}, tmp_path / "server.log")
        owner = ForkServer("the fork server", tmp_path / "server.log", lambda _: None)
        owner.own(janitor.folder)
        path = fork_server_socket(janitor.folder)
        hiding = "setsid env -i sleep 60 & echo $!; wait"
        child = ForkedProcess(path, ["sh", "-c", hiding], env=ENV, output=tmp_path / "log")
        hidden, pid = int(await said(tmp_path / "log")), await child.started()
        await eventually(lambda: os.getsid(hidden) == hidden)
        server = psutil.Process(pid).ppid()
        await owner.stop()
        assert await child.wait() == -signal.SIGKILL
        await eventually(lambda: not alive(server))
        assert alive(hidden)
    finally:
        janitor.dismiss()
    assert not alive(hidden)


def test_a_server_without_work_waits_for_nothing_but_it(tmp_path: Path) -> None:
    with forking(tmp_path):
        pass
    assert (tmp_path / "fork-server.log").read_bytes() == b""


async def test_many_are_started_at_once(fork_server: Path, tmp_path: Path) -> None:
    children = [
        ForkedProcess(fork_server, ["sh", "-c", f"exit {number}"], env=ENV, output=tmp_path / "log")
        for number in range(50)
    ]
    assert await asyncio.gather(*(child.wait() for child in children)) == list(range(50))


async def test_of_heavy_processes_only_some_start_at_once_and_the_next_when_one_has_settled_or_ended(
    fork_server: Path, tmp_path: Path
) -> None:
    def heavy() -> ForkedProcess:
        return ForkedProcess(fork_server, ["sleep", "60"], env=ENV, output=tmp_path / "log", heavy=True)

    first = [heavy() for _ in range(STARTING_A_CORE * len(os.sched_getaffinity(0)))]
    for each in first:
        await each.started()
    begun_s = time.monotonic()
    waiting = [heavy(), heavy()]
    late, last = (asyncio.ensure_future(each.started()) for each in waiting)
    light = shell(fork_server, "true")
    assert await light.wait() == 0
    assert time.monotonic() > begun_s + SETTLES_WITHIN_S or not late.done()
    first[0].settled()
    await late
    await first[1].kill()
    await last
    for each in first + waiting:
        await each.kill()
        await each.wait()


async def test_one_that_waits_to_start_can_be_killed_and_given_up(fork_server: Path, tmp_path: Path) -> None:
    codes: list[int] = []

    def heavy() -> ForkedProcess:
        told = codes.append
        return ForkedProcess(fork_server, ["sleep", "60"], env=ENV, output=tmp_path / "log", heavy=True, on_exit=told)

    first = [heavy() for _ in range(STARTING_A_CORE * len(os.sched_getaffinity(0)) + 1)]
    waiting = first[-1]
    await waiting.kill()
    assert await waiting.wait() == -signal.SIGKILL
    for each in first:
        await each.kill()
        await each.wait()
    assert codes == [-signal.SIGKILL] * len(first)
