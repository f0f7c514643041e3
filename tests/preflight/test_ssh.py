"""Command lines of logins, and in words why one failed."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from testbed.preflight.ssh import Logins

KEYLESS = Logins("ray", None, "10.0.0.1")
LOGINS = Logins("ray", Path("/my keys/id"), "10.0.0.1")
COMMAND = "echo 'one two'"


def proxy_command(command: list[str]) -> list[str]:
    (option,) = [part for part in command if part.startswith("ProxyCommand=")]
    return shlex.split(option.removeprefix("ProxyCommand="))


def test_the_head_is_logged_in_to_with_the_key_and_no_other() -> None:
    command = LOGINS.on_head(COMMAND)
    assert command[:5] == ["ssh", "-i", "/my keys/id", "-o", "IdentitiesOnly=yes"]
    assert command[-2:] == ["ray@10.0.0.1", COMMAND]
    assert "BatchMode=yes" in command


def test_a_worker_is_reached_through_the_head_with_our_key() -> None:
    command = LOGINS.on_worker("10.0.0.2", COMMAND)
    assert command[-2:] == ["ray@10.0.0.2", COMMAND]
    way = proxy_command(command)
    assert way[:3] == ["ssh", "-i", "/my keys/id"]
    assert way[-3:] == ["ray@10.0.0.1", "-W", "%h:%p"]


def test_without_a_key_it_is_the_head_that_logs_in() -> None:
    *to_head, on_head = KEYLESS.on_worker("10.0.0.2", COMMAND)
    assert to_head == KEYLESS.on_head("")[:-1]
    assert shlex.split(on_head) == [*KEYLESS.on_head("")[:-2], "ray@10.0.0.2", COMMAND]


def test_a_proxy_command_is_for_the_way_to_the_head_only() -> None:
    logins = Logins("ray", Path("/id"), "10.0.0.1", "nc -x proxy:1080 %h %p")
    assert proxy_command(logins.on_head(COMMAND)) == ["nc", "-x", "proxy:1080", "%h", "%p"]
    # ssh makes of %%h the %h that the ssh within it replaces.
    through = proxy_command(logins.on_worker("10.0.0.2", COMMAND))
    assert "ProxyCommand=nc -x proxy:1080 %%h %%p" in through
    assert through[-1] == "%h:%p"


@pytest.mark.parametrize(
    ("exit_code", "said", "reason"),
    [
        (
            255,
            "ray@10.0.0.1: Permission denied (publickey).",
            "does not let ray in with the key /my keys/id (ray@10.0.0.1: Permission denied (publickey).)",
        ),
        (
            255,
            'This key will be ignored.\nLoad key "id": bad permissions\nray@h: Permission denied (publickey).\n',
            'does not let ray in with the key /my keys/id (Load key "id": bad permissions; '
            "ray@h: Permission denied (publickey).)",
        ),
        (
            255,
            "ssh: connect to host 10.0.0.1 port 22: Connection refused\n",
            "cannot be reached (ssh: connect to host 10.0.0.1 port 22: Connection refused)",
        ),
        (
            255,
            "channel 0: open failed: connect failed: No route to host\nstdio forwarding failed\nConnection closed\n",
            "cannot be reached (channel 0: open failed: connect failed: No route to host)",
        ),
        (
            255,
            "Connection timed out during banner exchange\nConnection to UNKNOWN port 65535 timed out\n",
            "cannot be reached (Connection timed out during banner exchange)",
        ),
        (
            127,
            "bash: no job control in this shell\nbash: line 1: python3: command not found\n",
            "has no python3 (bash: line 1: python3: command not found)",
        ),
        (1, "This account is not available.\n", "gives no answer (This account is not available.)"),
        (255, "", "gives no answer (exit code 255)"),
    ],
)
def test_a_failed_login_is_told_in_words(exit_code: int, said: str, reason: str) -> None:
    assert LOGINS.why_not(exit_code, said) == reason
