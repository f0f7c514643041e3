"""What came of a login, and in words why it failed."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from testbed.machines.preflight.ssh import Answer, NoAnswer, answered, in_login_shell, log_in

KEY = "/my keys/id"
REPORT = '{"testbed_preflight":{"python":"3.12.4"}}'


def why_not(exit_code: int | None, said: str) -> str:
    with pytest.raises(NoAnswer) as caught:
        answered(Answer(exit_code, "Welcome!\n", said), "ray", KEY)
    return str(caught.value)


def test_what_a_login_prints_of_its_own_accord_is_passed_over() -> None:
    answer = Answer(0, f"Welcome!\n{REPORT}\nlogout\n", "bash: no job control in this shell")
    assert answered(answer, "ray", KEY) == {"python": "3.12.4"}


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
            "Connection timed out during banner exchange\nConnection to UNKNOWN port 65535 timed out\n",
            "cannot be reached (Connection timed out during banner exchange)",
        ),
        (
            127,
            "bash: /etc/shadow: Permission denied\nbash: line 1: python3: command not found\n",
            "has no python3 (bash: line 1: python3: command not found)",
        ),
        (1, "bash: /etc/shadow: Permission denied\n", "gives no answer (bash: /etc/shadow: Permission denied)"),
        (
            3,
            "Warning: Permanently added '10.0.0.2' (ED25519).\nbash: no job control in this shell\n",
            "gives no answer (exit code 3)",
        ),
        (None, "", "gives no answer within 30 s"),
    ],
)
def test_a_failed_login_is_told_in_words(exit_code: int | None, said: str, reason: str) -> None:
    assert why_not(exit_code, said) == reason


def test_start_up_files_decide_which_python_it_is(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").symlink_to(sys.executable)
    (tmp_path / ".bashrc").write_text(f"PATH={tmp_path}/bin:$PATH\nprintf 'no end of line'\n")
    script = "import sys; print(); print(sys.argv[0], sys.executable, 'it\\'s')"
    done = subprocess.run(
        ["bash", "-c", in_login_shell(script)],
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == f"-c {tmp_path}/bin/python3 it's"


def test_a_login_that_takes_too_long_is_ended() -> None:
    began_s = time.monotonic()
    assert log_in(["sleep", "60"], b"", within_s=0.2) == Answer(None, "", "")
    assert time.monotonic() - began_s < 30


def test_an_ssh_that_cannot_be_started_is_told() -> None:
    with pytest.raises(NoAnswer, match=r"cannot be tried: .*no such program"):
        log_in([shlex.quote("no such program")], b"", within_s=1.0)
