"""Runs of the real command line, on real Ray, Envoy and Locust."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
from tenacity import retry, retry_if_result, stop_after_delay, wait_fixed
from typer.testing import CliRunner

from testbed.cli import app
from testbed.control.placement import Hosting
from testbed.emulation.processes.forked_process import fork_server_socket
from testbed.results.tables.writer import read_table
from tests.emulation.forking import forking

SHORT_OF_CORES = re.compile(
    r"load generator lag: |achieved rate of |CPU of machine \S+ above |latency of \d+ links is off"
    r"|came \d+ ms after its time|was held up for "
)
README = Path(__file__).parents[2] / "README.md"
SCENARIOS = Path(__file__).parent / "scenarios"
COMMAND = (sys.executable, "-c", "from testbed.cli import main; main()")
RUN_TIMEOUT_S = 180
DEADLINE_S = 60.0
"""For what takes a few seconds, on a machine that is busy with much else."""


@dataclass(frozen=True)
class FinishedRun:
    """What a run left behind."""

    exit_code: int
    stderr: str
    run_dir: Path | None
    summary: dict[str, Any]

    def rows(self, table: str) -> list[dict[str, Any]]:
        assert self.run_dir is not None, self.stderr
        rows: list[dict[str, Any]] = read_table(self.run_dir, table).to_pylist()
        return rows

    def traces(self, request_ids: Sequence[str]) -> list[dict[str, Any]]:
        """What `testbed trace` says of these."""
        said = CliRunner().invoke(app, ["trace", str(self.run_dir), *request_ids, "--json"])
        assert said.exit_code == 0, said.stderr
        traces: list[dict[str, Any]] = orjson.loads(said.stdout)
        return traces

    def last_kill_s(self) -> float:
        """When the last proxy was dead that a fault killed."""
        assert self.run_dir is not None, self.stderr
        killed = orjson.loads((self.run_dir / "facts.json").read_bytes())["killed_proxies"]
        return max(float(killed_s) for _, killed_s in killed)


def readme_cost_s(run: FinishedRun, dead_zone: str) -> dict[str, float]:
    """What README's own script prints of this run: pod -> seconds of tries in vain into the dead zone."""
    blocks = re.findall(r"^```python\n(.*?)^```$", README.read_text(), re.DOTALL | re.MULTILINE)
    (script,) = (block for block in blocks if "tries in vain" in block)
    command = [sys.executable, "-c", script, str(run.run_dir), dead_zone]
    printed = subprocess.run(command, capture_output=True, text=True, timeout=RUN_TIMEOUT_S, check=True).stdout
    return {pod: float(seconds) for pod, seconds in re.findall(r"^(\S+): ([\d.]+) s of tries", printed, re.MULTILINE)}


def told_of(step: dict[str, Any], trace: dict[str, Any], proxy: str | None = None) -> dict[str, Any]:
    """What the proxy, that of the caller's pod unless said otherwise, had been told about a call or try of a trace: a
    request that is tried again may find it told something new."""
    wanted = (proxy or step["source"], step["service"])
    found = [each for each in trace["told"] if (each["proxy"], each["service"]) == wanted]
    told = max((each for each in found if each["at_s"] <= step["start_s"]), key=lambda each: each["at_s"])
    return {**told, "pods": {pod for group in told["endpoints"] for pod in group["pods"]}}


def wrongs(run: FinishedRun) -> list[str]:
    """Why the run is invalid, without what only says that the machine was short of cores: that is no test's matter."""
    return [reason for reason in run.summary["invalid_reasons"] if not SHORT_OF_CORES.search(reason)]


def whole_in_logs(run: FinishedRun, request: dict[str, Any]) -> bool:
    """Whether no proxy that the run's first fault killed can have taken a line of the request with it.

    A proxy writes its log every 200 ms, or later if it waits for a core, and what a killed one had not written is gone:
    of a request that was answered long before, or began after.
    """
    applied_s = run.summary["faults"][0]["applied_s"]
    return bool(request["finished_s"] < applied_s - 1.0 or request["sent_s"] > run.last_kill_s())


def start_run(
    scenario: str, out: Path, *overrides: str, hosting: Hosting = "node", options: Sequence[str] = ()
) -> subprocess.Popen[bytes]:
    """The command, started and not waited for. Pods are hosted by their nodes: they are there sooner."""
    arguments = [*COMMAND, "run", str(SCENARIOS / scenario), "--json", "--out", str(out), "--hosting", hosting]
    arguments += options
    for override in overrides:
        arguments += ["--set", override]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)


def finish_run(process: subprocess.Popen[bytes], out: Path) -> FinishedRun:
    """Wait for the command. Its process group is ended if it takes too long."""
    try:
        stdout, stderr = process.communicate(timeout=RUN_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    return FinishedRun(
        process.returncode,
        stderr.decode(),
        next(iter(sorted(out.iterdir())), None) if out.exists() else None,
        orjson.loads(stdout) if stdout else {},
    )


@pytest.fixture(scope="session", autouse=True)
def empty_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What the user has in the home, such as a token of Ray's that is open to others, changes nothing that is said."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="session")
def shared_fork_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with forking(tmp_path_factory.mktemp("fork-server")) as path:
        yield path


@pytest.fixture
def fork_server(shared_fork_server: Path, tmp_path: Path) -> Path:
    """Where one listens, in the folder of the test: all tests share it."""
    path = fork_server_socket(tmp_path)
    path.symlink_to(shared_fork_server)
    return path


@pytest.fixture(scope="session")
def testbed_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., FinishedRun]:
    """`testbed_run(scenario, *overrides)`: run it to its end. The same call gives the same run, once a session."""
    done: dict[tuple[str, ...], FinishedRun] = {}

    def run(scenario: str, *overrides: str, hosting: Hosting = "node") -> FinishedRun:
        key = (scenario, hosting, *overrides)
        if key not in done:
            out = tmp_path_factory.mktemp("runs")
            done[key] = finish_run(start_run(scenario, out, *overrides, hosting=hosting), out)
        return done[key]

    return run


def processes_marked(run_id: str) -> dict[int, str]:
    """Command lines, by process id, of all processes that carry the run's mark in their environment."""
    marker = f"TESTBED_RUN={run_id}".encode()
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if marker in (entry / "environ").read_bytes().split(b"\0"):
                    found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue  # it ended, or is another user's
    return found


def load_has_begun(out: Path, requests: int = 1) -> bool:
    """Whether so many lines about requests are written."""
    return any(len(path.read_bytes().splitlines()) >= requests for path in out.glob("*/logs/*.requests.jsonl"))


def run_id(out: Path) -> str:
    """The run's mark, from the environment of its load generator."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                environ = (entry / "environ").read_bytes().split(b"\0")
                settings = next((v for v in environ if v.startswith(b"TESTBED_LOAD=")), b"").decode()
            except OSError:
                continue
            if str(out) in settings:
                return next(v for v in environ if v.startswith(b"TESTBED_RUN=")).decode().partition("=")[2]
    raise AssertionError(f"no load generator writes into {out}")


def until(condition: Callable[[], object], deadline_s: float = DEADLINE_S) -> bool:
    """Whether the condition became true within the deadline."""

    @retry(
        retry=retry_if_result(lambda met: not met),
        stop=stop_after_delay(deadline_s),
        wait=wait_fixed(0.1),
        retry_error_callback=lambda _: False,
    )
    def poll() -> bool:
        return bool(condition())

    return bool(poll())
