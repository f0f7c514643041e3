"""Where no lab can be made, the reason says what to do."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import orjson
import pytest

from testbed.machines.lab import lifecycle
from testbed.machines.lab.lifecycle import ask, check_free, check_host, remove_lab
from testbed.machines.lab.plan import LabError, LabPlan


def test_without_root_it_asks_for_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(LabError, match="run it with sudo"):
        check_host()
    with pytest.raises(LabError, match="run it with sudo"):
        remove_lab("testbed-none")


def test_elsewhere_than_on_linux_it_says_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(LabError, match="this is darwin: run it in a Linux VM"):
        check_host()


def test_missing_programs_are_told_with_the_command_that_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda tool, path: None if tool in {"sshd", "rsync"} else f"/bin/{tool}")
    with pytest.raises(LabError, match=r"apt-get install -y openssh-server rsync$"):
        check_host()


def test_where_no_lab_is_up_a_command_says_how_to_make_one() -> None:
    with pytest.raises(LabError, match="`testbed lab up` makes one"):
        ask("testbed-none", "status")


def route_to(monkeypatch: pytest.MonkeyPatch, *destinations: str) -> None:
    routes = orjson.dumps([{"dst": destination, "dev": "tun0"} for destination in destinations])
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 0, routes))


def test_ways_out_of_here_leave_the_subnet_free(monkeypatch: pytest.MonkeyPatch) -> None:
    route_to(monkeypatch, "default", "0.0.0.0/1", "128.0.0.0/1", "192.0.0.0/8", "198.18.1.0/24", "192.0.2.1")
    check_free(LabPlan())


@pytest.mark.parametrize("destination", ["198.18.0.0/15", "198.18.0.0/24", "198.18.0.200"])
def test_a_network_where_the_lab_would_be_is_told(monkeypatch: pytest.MonkeyPatch, destination: str) -> None:
    route_to(monkeypatch, "default", destination)
    with pytest.raises(LabError, match=rf"in use here \({destination}.* dev tun0\): choose a --subnet"):
        check_free(LabPlan())


def test_a_lab_that_ends_before_it_answers_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "state_dir", lambda _: tmp_path)
    (tmp_path / "control").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "control" / "socket"))
        server.listen()

        def end_with_the_command_half_read() -> None:
            client, _ = server.accept()
            with client:
                client.recv(1)

        supervisor = threading.Thread(target=end_with_the_command_half_read)
        supervisor.start()
        try:
            with pytest.raises(LabError, match="the lab has ended"):
                ask("testbed-none", "status")
        finally:
            supervisor.join()
