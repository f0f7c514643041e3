"""A real lab: machines that are places of their own, silent when they are gone, and nothing left at the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from testbed.machines.lab.lifecycle import ask, make_lab, remove_lab
from testbed.machines.lab.plan import LabError, LabPlan
from testbed.machines.lab.state import load_state
from tests.multimachine.conftest import unavailable

PLAN = LabPlan(3, ("east-a", "east-b"), "testbed-test77", "198.18.77.0/24")
COMMAND_TIMEOUT_S = 120.0
SHORT_S = 1.5
"""How long a program on a machine waits before it believes that nothing comes."""

LISTENER = """
import socket, sys
server = socket.create_server((sys.argv[1], 7000))
print("listening", flush=True)
connection, _ = server.accept()
for line in sys.stdin.buffer:
    connection.sendall(line)
"""
PEER = """
import socket, sys
address = sys.argv[1]
def what_happens(action):
    try:
        return action() or "closed"
    except OSError as error:
        return type(error).__name__
connection = socket.create_connection((address, 7000))
print("connected", flush=True)
for line in sys.stdin:
    wait_s = float(line)
    connection.settimeout(wait_s)
    print(what_happens(lambda: connection.recv(100).decode().strip()), flush=True)
    print(what_happens(lambda: socket.create_connection((address, 22), timeout=wait_s) and "accepted"), flush=True)
"""


pytestmark = [pytest.mark.live, pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def lab(home: Path) -> Iterator[LabPlan]:
    remove_lab(PLAN.name)
    make_lab(PLAN, home)
    try:
        yield PLAN
    finally:
        remove_lab(PLAN.name)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from testbed.cli import main; main()", "lab", *arguments]


def run(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        env={**os.environ, "TESTBED_LAB": PLAN.name},
        input=text,
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
        check=False,
    )


def states() -> dict[str, dict[str, Any]]:
    return {machine["name"]: machine for machine in ask(PLAN.name, "status")["machines"]}


class Program:
    """A Python program on a machine, spoken to line by line."""

    def __init__(self, machine: str, source: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            command("exec", machine, "--", "python3", "-c", source, *arguments),
            env={**os.environ, "TESTBED_LAB": PLAN.name},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def hear(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()


def test_a_command_on_a_machine_has_its_host_name_its_home_and_its_exit_code(lab: LabPlan) -> None:
    done = run("exec", "m2", "--", "sh", "-c", "hostname; cat ~/.testbed-zone; cat /proc/uptime; exit 7")
    host, zone, uptime = done.stdout.splitlines()
    assert (host, zone, done.returncode) == ("m2", "east-a", 7)
    ahead_s = float(uptime.split()[0]) - float(Path("/proc/uptime").read_text().split()[0])
    assert ahead_s == pytest.approx(lab.machine("m2").clock_offset_s, abs=COMMAND_TIMEOUT_S)


def test_machines_reach_each_other_over_ssh_and_keep_their_files_to_themselves(lab: LabPlan, home: Path) -> None:
    key = (home / ".testbed" / "lab" / "id_ed25519").read_text()
    hop = "ssh -i /tmp/key -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null m3"
    script = f"umask 077; cat > /tmp/key; {hop} 'hostname; touch ~/mine /tmp/mine; nproc' && ls ~/mine /tmp/mine"
    done = run("exec", "m1", "--", "sh", "-c", script, text=key)
    assert done.stdout.splitlines()[0] == "m3"
    assert done.returncode != 0, "files of m3 are seen on m1"
    assert not (Path.home() / "mine").exists()
    assert not Path("/tmp/mine").exists()
    assert run("exec", "m3", "--", "sh", "-c", "ls ~/mine /tmp/mine").returncode == 0


def test_the_host_is_reached_and_nothing_beyond(lab: LabPlan) -> None:
    reach = "import socket; socket.create_connection(('192.0.2.1', 80), 1)"
    done = run("exec", "m1", "--", "python3", "-c", reach)
    assert "Network is unreachable" in done.stderr
    assert run("exec", "m1", "--", "ip", "route", "get", lab.host_address).returncode == 0


def test_a_cut_is_silent_in_connections_old_and_new_until_it_is_healed(lab: LabPlan) -> None:
    address = lab.machine("m2").address
    with Program("m2", LISTENER, address) as listener:
        assert listener.hear() == "listening"
        with Program("m1", PEER, address) as peer:
            assert peer.hear() == "connected"
            ask(lab.name, "cut", ["m2", "m1"])
            assert (states()["m1"]["cut_from"], states()["m3"]["cut_from"]) == (["m2"], [])
            listener.say("held back")
            peer.say(str(SHORT_S))
            assert [peer.hear(), peer.hear()] == ["TimeoutError", "TimeoutError"]
            ask(lab.name, "heal", ["m1", "m2"])
            # Until TCP tries again, which it does ever more seldom.
            peer.say(str(COMMAND_TIMEOUT_S))
            assert [peer.hear(), peer.hear()] == ["held back", "accepted"]


def test_a_machine_killed_from_another_falls_silent_and_starts_again_with_its_home(lab: LabPlan) -> None:
    address = lab.machine("m2").address
    assert run("exec", "m2", "--", "sh", "-c", "touch ~/kept /tmp/lost").returncode == 0
    with Program("m2", LISTENER, address) as listener:
        assert listener.hear() == "listening"
        with Program("m1", PEER, address) as peer:
            assert peer.hear() == "connected"
            assert run("exec", "m1", "--", "testbed", "lab", "kill", address).returncode == 0
            assert states()["m2"]["state"] == "off"
            peer.say(str(SHORT_S))
            assert [peer.hear(), peer.hear()] == ["TimeoutError", "TimeoutError"]
    off = run("exec", "m2", "--", "true")
    assert (off.returncode, off.stderr) == (2, "m2 is off: `testbed lab start m2` first\n")
    ask(lab.name, "start", ["m2"])
    assert states()["m2"]["state"] == "up"
    assert run("exec", "m2", "--", "sh", "-c", "ls ~/kept && ! ls /tmp/lost").returncode == 0


def test_a_machine_that_cannot_start_is_off_and_starts_once_it_can(lab: LabPlan) -> None:
    config = lab.state_dir / "ssh" / "m3.conf"
    text = config.read_text()
    ask(lab.name, "kill", ["m3"])
    config.write_text("Nonsense yes\n")
    with pytest.raises(LabError, match=r"machine m3 did not come up: .*Nonsense"):
        ask(lab.name, "start", ["m3"])
    assert states()["m3"]["state"] == "off"
    config.write_text(text)
    ask(lab.name, "start", [lab.machine("m3").address])
    assert states()["m3"]["state"] == "up"


def test_what_cannot_be_done_exits_with_2_and_says_what_could(lab: LabPlan, home: Path) -> None:
    unknown = run("kill", "m9")
    assert (unknown.returncode, "did you mean" in unknown.stderr) == (2, True)
    assert make_lab(lab, home) is False
    with pytest.raises(LabError, match="`testbed lab down` first"):
        make_lab(LabPlan(2, lab.zones, lab.name, lab.subnet), home)
    with pytest.raises(LabError, match="cut needs two machines"):
        ask(lab.name, "cut", ["m1", "m1"])
    inside = run("exec", "m1", "--", "testbed", "lab", "down")
    assert (inside.returncode, "on their host" in inside.stderr) == (2, True)
    address = lab.machine("m2").address
    onward = run("exec", "m1", "--", "testbed", "lab", "exec", "m2", "--", "true")
    assert (onward.returncode, onward.stderr) == (2, f"only the lab's host can do that: use ssh {address}\n")
    assert orjson.loads(run("status", "--json").stdout)[0]["state"] == "up"


def test_after_a_crash_of_the_lab_nothing_is_left(lab: LabPlan) -> None:
    state = load_state(lab.state_dir)
    assert state is not None
    supervisor, *others = state.processes
    assert len(others) == 2 * lab.count
    supervisor.signal(signal.SIGKILL)
    assert remove_lab(lab.name) is True
    assert not [process for process in state.processes if process.is_running]
    assert not lab.state_dir.exists()
    assert not Path("/sys/class/net", lab.name).exists()
    assert lab.name not in Path("/proc/self/mounts").read_text()
    assert remove_lab(lab.name) is False
    assert (run("status").returncode, run("down").returncode) == (2, 0)
