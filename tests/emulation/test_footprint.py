"""What a run shows to others of its machine while it goes on, and what is left when its command is killed.

One run for all: the tests look at it in this order, and the last one ends it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import psutil
import pytest

from testbed.emulation.processes.process import adopt_orphans
from tests.emulation.conftest import start_run, until
from tests.emulation.stranger import ray_methods, try_calls

pytestmark = pytest.mark.live

STRANGER_WITHIN_S = 120


@dataclass(frozen=True)
class RunningRun:
    command: subprocess.Popen[bytes]
    out: Path
    home: Path
    folder: Path
    """The one that it has for temporary files."""

    def processes(self) -> list[psutil.Process]:
        """All that descend from the command, whoever their parents are by now."""
        return [each for each in psutil.Process().children(recursive=True) if runs(each)]

    def listening(self) -> set[tuple[str, int, str]]:
        """Address, port and owner."""
        found = set()
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):  # it has ended since
                found |= {
                    (connection.laddr.ip, connection.laddr.port, process.name())
                    for connection in process.net_connections("inet")
                    if connection.status in (psutil.CONN_LISTEN, psutil.CONN_NONE)
                }
        return found


def runs(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@contextmanager
def adopting_orphans() -> Iterator[None]:
    """Whatever is started meanwhile is a descendant of this process until it ends, or the block does."""
    adopt_orphans()
    try:
        yield
    finally:
        adopt_orphans(False)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRun]:
    home, out, temporary = (tmp_path_factory.mktemp(name) for name in ("home", "out", "tmp"))
    with adopting_orphans(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        patch.setenv("TMPDIR", str(temporary))
        # With as many processes and ports as a run can have.
        command = start_run("small.yaml", out, "spec.load.duration=100s", hosting="actor")
        try:
            assert until(lambda: any(path.stat().st_size for path in out.glob("*/logs/*.requests.jsonl")))
            (folder,) = temporary.iterdir()
            yield RunningRun(command, out, home, folder)
        finally:
            command.kill()
            command.communicate()


def test_all_that_listens_listens_on_loopback(running: RunningRun) -> None:
    owners = {"gcs_server", "raylet", "ray::DashboardAgent", "ray::RuntimeEnvAgent", "envoy"}
    assert until(lambda: owners <= {owner for _, _, owner in running.listening()}), running.listening()
    listening = running.listening()
    beyond = [each for each in listening if not ip_address(each[0].removeprefix("::ffff:")).is_loopback]
    assert not beyond


def test_its_folders_are_its_own_users_and_its_token_is_not_in_the_home(running: RunningRun) -> None:
    (run_dir,) = running.out.iterdir()
    assert {path.stat().st_mode & 0o777 for path in (run_dir, running.folder)} == {0o700}
    assert (running.folder / "ray-token").stat().st_mode & 0o777 == 0o600
    assert not list(running.home.iterdir())


def is_root() -> bool:
    return os.geteuid() == 0 and shutil.which("useradd") is not None


@pytest.mark.skipif(not is_root(), reason="a second user is made for it, which takes root")
def test_another_user_of_the_machine_gets_nothing_but_refusals(running: RunningRun) -> None:
    ports = sorted({port for address, port, _ in running.listening() if address.endswith("127.0.0.1")})
    # So that it is known to be a refusal: who has the token is answered.
    methods, token = ray_methods(), (running.folder / "ray-token").read_text()
    assert any(try_calls(port, ["/ray.rpc.NodeInfoGcsService/GetAllNodeInfo"], token) for port in ports)
    sockets = [str(path) for path in running.folder.rglob("*") if path.is_socket()]
    assert any(path.endswith(".admin") for path in sockets)
    assert any(path.endswith(".ads") for path in sockets)
    (run_dir,) = running.out.iterdir()
    task = {
        "ports": ports,
        "sockets": sockets,
        "folders": [str(run_dir), str(run_dir / "logs"), str(running.folder), str(running.folder / "ray")],
        "files": [
            str(running.folder / "ray-token"),
            *(f"/proc/{process.pid}/environ" for process in running.processes()),
        ],
    }
    assert len(ports) > 10
    assert len(methods) > 100
    with second_user() as uid:
        tried = subprocess.run(
            [sys.executable, "-m", "tests.emulation.stranger"],
            input=json.dumps({**task, "uid": uid}),
            capture_output=True,
            text=True,
            timeout=STRANGER_WITHIN_S,
        )
    assert (tried.returncode, tried.stdout) == (0, ""), tried.stderr


@contextmanager
def second_user() -> Iterator[int]:
    name = f"testbed-{os.getpid()}"
    subprocess.run(["useradd", "--system", "--no-create-home", name], check=True, capture_output=True)
    try:
        yield int(subprocess.run(["id", "-u", name], check=True, capture_output=True, text=True).stdout)
    finally:
        subprocess.run(["userdel", name], check=True, capture_output=True)


def test_a_killed_command_leaves_no_process_port_or_folder(running: RunningRun) -> None:
    before = running.listening()
    assert len(running.processes()) > 8
    os.kill(running.command.pid, signal.SIGKILL)
    running.command.communicate()
    assert until(lambda: not running.processes()), running.processes()
    assert until(lambda: not running.folder.exists()), list(running.folder.iterdir())
    ports = {
        (each.laddr.ip, each.laddr.port) for each in psutil.net_connections("inet") if each.status == psutil.CONN_LISTEN
    }
    assert not ports & {(address, port) for address, port, _ in before}
    assert not list(running.home.iterdir())
