"""Logins with `ssh`, as Ray's launcher does them, and in words why one has failed.

Options and shell are those of `ray.autoscaler._private.command_runner`; but nobody is asked for anything, and a login
is tried once.
"""

from __future__ import annotations

import shlex
import subprocess
from dataclasses import dataclass
from typing import Any

import orjson

CONNECT_TIMEOUT_S = 10
WITHIN_S = 30.0
"""For all of a login and what is then run."""
COMMAND_NOT_FOUND = 127
SSH_FAILED = 255
_REFUSED = ("Permission denied", "Too many authentication failures")
_KEY_UNFIT = "Load key "
_UNREACHED = ("connect to host", "Connection timed out", "Could not resolve hostname")
_SAID_ANYHOW = (
    "bash: cannot set terminal process group",
    "bash: no job control in this shell",
    "Warning: Permanently added",
)


class NoAnswer(Exception):
    """Why not, to be read on from the name of a machine."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a login; `exit_code` is None when there was none in time."""

    exit_code: int | None
    stdout: str
    stderr: str


def options(user: str) -> list[str]:
    """Of both ways, from here to the head and from there to a worker."""
    settings = (
        "BatchMode=yes",
        "IdentitiesOnly=yes",
        "ForwardAgent=no",
        "StrictHostKeyChecking=no",
        "UserKnownHostsFile=/dev/null",
        "ServerAliveInterval=5",
        "ServerAliveCountMax=3",
        f"ConnectTimeout={CONNECT_TIMEOUT_S}",
    )
    return [*(part for setting in settings for part in ("-o", setting)), "-l", user]


def in_login_shell(script: str) -> str:
    """The command that runs a Python script as Ray runs what it starts: what ~/.bashrc does to the path counts."""
    command = f"source ~/.bashrc; PATH=~/testbed-env/bin:$PATH python3 -c {shlex.quote(script)}"
    return f"bash --login -c -i {shlex.quote(command)}"


def log_in(command_line: list[str], standard_input: bytes, within_s: float) -> Answer:
    """Raises NoAnswer when ssh cannot be started."""
    try:
        with subprocess.Popen(command_line, stdin=-1, stdout=-1, stderr=-1) as login:
            try:
                printed, said = login.communicate(standard_input, timeout=within_s)
            except subprocess.TimeoutExpired:
                return Answer(None, "", "")
            finally:
                login.kill()
    except (OSError, ValueError) as error:
        raise NoAnswer(f"cannot be tried: {error}") from None
    return Answer(login.returncode, printed.decode(errors="replace"), said.decode(errors="replace"))


def answered(answer: Answer, user: str, key: str | None) -> Any:
    """What the script printed. Raises NoAnswer."""
    # A shell's start-up files may print lines of their own.
    for line in reversed(answer.stdout.splitlines()):
        if line.startswith('{"testbed_preflight"'):
            return orjson.loads(line)["testbed_preflight"]
    raise NoAnswer(_why_not(answer, user, key))


def _why_not(answer: Answer, user: str, key: str | None) -> str:
    lines = [line.strip() for line in answer.stderr.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(_SAID_ANYHOW)]
    last = lines[-1] if lines else f"exit code {answer.exit_code}"
    if answer.exit_code is None:
        return f"gives no answer within {WITHIN_S:g} s"
    if answer.exit_code == COMMAND_NOT_FOUND:
        return f"has no python3 ({last})"
    if answer.exit_code == SSH_FAILED:
        if refused := [line for line in lines if any(words in line for words in _REFUSED)]:
            why = [*(line for line in lines if line.startswith(_KEY_UNFIT)), refused[-1]]
            by = "" if key is None else f" with the key {key}"
            return f"does not let {user} in{by} ({'; '.join(why)})"
        if unreached := [line for line in lines if any(words in line for words in _UNREACHED)]:
            return f"cannot be reached ({unreached[0]})"
    return f"gives no answer ({last})"
