"""`testbed lab` on a machine of the lab, which is not the lab's host."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NoReturn

import pytest
from typer.testing import CliRunner

from testbed.machines.lab import cli


def test_a_command_never_runs_by_a_process_id_that_counts_on_another_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*_: Any) -> NoReturn:
        pytest.fail("it runs a command somewhere")

    m2 = {"name": "m2", "address": "198.18.0.12", "pid": os.getpid()}
    monkeypatch.setattr(cli, "ask", lambda *_: {"machines": [m2]})
    monkeypatch.setattr(cli, "state_dir", lambda _: tmp_path)
    monkeypatch.setattr(os.path, "exists", lambda _: True)
    monkeypatch.setattr(os, "execvpe", run)
    for machine in (m2["name"], m2["address"]):
        result = CliRunner().invoke(cli.lab, ["exec", str(machine), "--", "true"])
        assert (result.exit_code, result.stderr) == (2, "only the lab's host can do that: use ssh 198.18.0.12\n")
