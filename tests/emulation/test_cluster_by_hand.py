"""A cluster that stays up, driven by the commands of the real command line, on real Ray, Envoy and Locust."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import orjson
import pytest

from testbed.emulation.driver.channel import Declined, ask
from testbed.results.tables.facts import RunFacts
from testbed.results.tables.writer import read_table
from tests.emulation.conftest import COMMAND, RUN_TIMEOUT_S, SCENARIOS, processes_marked, until

pytestmark = pytest.mark.live

SMALL = SCENARIOS / "small.yaml"


@dataclass
class Terminal:
    """One of the user's, in which commands are typed."""

    folder: Path
    environment: dict[str, str]
    guest: subprocess.Popen[bytes] | None = None

    def start(self, *arguments: str | Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def type(self, *arguments: str | Path, given: str = "", code: int = 0) -> str:
        done = subprocess.run(
            [*COMMAND, *map(str, arguments)],
            cwd=self.folder,
            env=self.environment,
            input=given,
            text=True,
            capture_output=True,
            timeout=RUN_TIMEOUT_S,
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    def status(self) -> dict[str, Any]:
        """The same answer as that of the command, without a process for each question."""
        return ask(self.folder / "own" / "testbed" / "mine" / "socket", "status")


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Terminal:
    folder = tmp_path_factory.mktemp("by-hand")
    (folder / "own").mkdir(0o700)
    return Terminal(folder, {**os.environ, "XDG_RUNTIME_DIR": str(folder / "own")})


@pytest.fixture(scope="module")
def session(terminal: Terminal) -> Iterator[Path]:
    """The result folder of a session in which everything was done once."""
    terminal.type("up", SMALL, "--detach", "--hosting", "node", "--name", "mine", "--locust-ui")
    try:
        yield _driven(terminal)
    finally:
        if terminal.guest is not None:
            terminal.guest.kill()
            terminal.guest.wait()
        if b"no cluster" not in (down := terminal.start("down", "mine")).communicate()[0]:
            assert down.returncode == 0


def _driven(terminal: Terminal) -> Path:
    (there,) = orjson.loads(terminal.type("status", "--json"))["clusters"]
    run_dir = Path(there["run_dir"])
    guest_port = _start_guest(terminal, there["locust"]["east-a"]["line"])
    assert [pod["proxy"] for pod in there["pods"]] == ["in sync", "in sync"]
    terminal.type("load", "start")
    assert until(lambda: _sent(run_dir) > 20)
    assert "gone: hit east-a-1" in terminal.type("inject", "-", given="{name: gone, crash: {node: east-a-1}}")
    assert until(lambda: terminal.status()["nodes"][0]["ready"] == "Unknown")
    assert [fault["name"] for fault in terminal.status()["faults"]] == ["gone"]
    assert "gone: healed" in terminal.type("heal", "mine", "gone")
    assert until(lambda: all(pod["ready"] for pod in terminal.status()["pods"]))
    assert "no-master: hit control-plane" in terminal.type(
        "inject", "-", given="{name: no-master, kill: {master: control-plane}}"
    )
    assert until(lambda: _there(terminal))
    assert until(lambda: [pod["proxy"] for pod in terminal.status()["pods"]] == ["in sync", "in sync"])
    two = terminal.folder / "two.yaml"
    two.write_text(SMALL.read_text().replace("replicas: 1", "replicas: 2"))
    assert "all is as declared" in terminal.type("apply", two)
    assert "cannot change while" in terminal.type("apply", two, "--set", "spec.controlPlane.profile=kubernetes", code=2)
    assert "there is no pod 'web-9'; there are web-1" in terminal.type("logs", "web-9", code=2)
    _swarm(there["locust"]["east-a"]["page"], terminal.status)
    assert until(lambda: _listens(guest_port)), (terminal.folder / "guest.log").read_text()
    _swarm(f"http://127.0.0.1:{guest_port}", terminal.status)
    terminal.type("load", "stop")
    first = _sent(run_dir)
    terminal.type("load", "start")
    assert until(lambda: _sent(run_dir) > first + 5)
    log = terminal.folder / "own" / "testbed" / "mine.log"
    assert log.exists()
    assert str(run_dir) in terminal.type("down")
    assert not log.exists()
    assert "no cluster is up" in terminal.type("status", code=2)
    assert terminal.guest is not None
    terminal.guest.wait(RUN_TIMEOUT_S)
    return run_dir


def _there(terminal: Terminal) -> bool:
    """Whether there is a master again."""
    try:
        return bool(terminal.status()["nodes"])
    except Declined:
        return False


OWN = """
from locust import HttpUser, constant, task

class Mine(HttpUser):
    wait_time = constant(0.1)

    @task
    def look(self):
        self.client.get("/mine")
"""


def _swarm(page: str, status: Callable[[], dict[str, Any]]) -> None:
    """Start and stop users by Locust's own page."""

    def post(path: str, **form: object) -> dict[str, Any]:
        with urlopen(f"{page}{path}", urlencode(form).encode() if form else None, timeout=RUN_TIMEOUT_S) as answer:
            return dict(orjson.loads(answer.read()))

    def requests() -> int:
        return int(next(row for row in post("/stats/requests")["stats"] if row["name"] == "Aggregated")["num_requests"])

    assert post("/swarm", user_count=5, spawn_rate=5, host="")["success"]
    assert until(lambda: requests() >= 6)
    assert status()["load"]["requests_per_s"].keys() == {"east-a"}
    assert post("/stop", stop="yes")["success"]
    assert until(lambda: post("/stats/requests")["state"] == "stopped")


def _start_guest(terminal: Terminal, line: str) -> int:
    """A Locust of the user's own, by the line that is printed; it stays until the cluster goes down.

    Returns the port of its page.
    """
    (terminal.folder / "my.py").write_text(OWN)
    port = _free_port()
    with (terminal.folder / "guest.log").open("wb") as log:
        command = f"exec env {line} --web-host 127.0.0.1 --web-port {port}"
        terminal.guest = subprocess.Popen(command, shell=True, cwd=terminal.folder, stdout=log, stderr=log)
    return port


def _free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as trial:
        return trial.connect_ex(("127.0.0.1", port)) == 0


def _sent(run_dir: Path) -> int:
    return sum(path.read_bytes().count(b'"e":"s"') for path in run_dir.glob("logs/*.requests.jsonl"))


def test_what_was_done_by_hand_is_recorded_as_what_a_run_declares(session: Path) -> None:
    facts = RunFacts.load(session)
    ended = [(fault.name, fault.healed_s is not None) for fault in facts.faults]
    assert ended == [("gone", True), ("no-master", False), ("apply", True)]
    summary = orjson.loads((session / "summary.json").read_bytes())
    phases = {phase["name"]: phase for phase in summary["phases"]}
    assert phases["during gone"]["unknown"] > 0
    assert "after apply" in phases
    without = phases["after no-master"]
    assert without["sent"] == without["ok"] > 0, "a data plane needs no master"
    events = read_table(session, "events").to_pylist()
    killed_s, *_ = [event["t_s"] for event in events if (event["kind"], event["reason"]) == ("Master", "Killed")]
    applied_s = next(fault.applied_s for fault in facts.faults if fault.name == "apply")
    meanwhile = {event["reason"] for event in events if killed_s < event["t_s"] < applied_s}
    assert {"Started", "Leading", "Connected"} <= meanwhile
    assert not meanwhile & {"EndpointsChanged", "NodeNotReady", "NotReady", "ProcessExited"}
    assert len(facts.sending) == 2
    assert summary["requests"]["sent"] == summary["locust"]["requests"] == len(read_table(session, "requests"))
    assert len(set(read_table(session, "requests", ["request_id"])["request_id"].to_pylist())) == _sent(session)
    assert {row["pod"] for row in read_table(session, "pods").to_pylist()} >= {"web-1", "web-2"}
    assert (session / "report.html").exists()


def test_what_locusts_send_that_others_have_started_is_recorded_and_counted(session: Path) -> None:
    paths = Counter(row["path"] for row in read_table(session, "requests", ["path"]).to_pylist())
    assert paths["/mine"] >= 6
    assert paths["/"] >= 6
    summary = orjson.loads((session / "summary.json").read_bytes())
    assert not [reason for reason in summary["invalid_reasons"] if reason.startswith("lost records")]
    assert summary["hops"]["requests_of_strangers"] == 0


def test_one_that_is_killed_leaves_nothing_and_is_seen_to_be_gone(session: Path, terminal: Terminal) -> None:
    process = terminal.start("up", SMALL, "--hosting", "node", "--load")
    try:
        assert until(lambda: list(terminal.folder.glob("runs/small-*/logs/*.requests.jsonl")))
        (run_dir,) = terminal.folder.glob("runs/small-*")
        mark = _mark(run_dir)
        assert processes_marked(mark)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    assert until(lambda: not processes_marked(mark)), processes_marked(mark)
    assert f"small is gone: its process ({process.pid})" in terminal.type("status", code=2)
    assert not list((terminal.folder / "own" / "testbed").glob("small"))
    assert "gone" not in terminal.type("status", code=2)


def _mark(run_dir: Path) -> str:
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            environ = entry.read_bytes().split(b"\0")
        except OSError:
            continue
        if any(each.startswith(b"TESTBED_LOAD=") and str(run_dir).encode() in each for each in environ):
            return next(v for v in environ if v.startswith(b"TESTBED_RUN=")).decode().partition("=")[2]
    raise AssertionError(f"no load generator writes into {run_dir}")
