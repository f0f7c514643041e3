"""Where no lab can be made, the reason says what to do."""

from __future__ import annotations

import os
import shutil
import sys

import pytest

from testbed.lab.lifecycle import ask, check_host, remove_lab
from testbed.lab.plan import LabError


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
