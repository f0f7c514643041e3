"""Secrets: the user's SSH key for labs, a lab's host key, and the token that Ray asks every process for."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import subprocess
from pathlib import Path

from testbed.machines.lab.plan import LabError

_USER_KEY = Path(".testbed") / "lab" / "id_ed25519"


def user_key(home: Path) -> Path:
    """The private key with which `ray up` logs in to labs; made when missing, and kept for the next lab.

    The public key lies beside it, with the suffix `.pub`. Raises LabError for a private key that yields none.

    Of `~/.testbed/lab/id_ed25519`, ssh takes `~` to be the home in the user database and Ray takes it to be `home`
    ($HOME): where they differ, the key is in both.
    """
    key = Path(pwd.getpwuid(os.getuid()).pw_dir) / _USER_KEY
    if not key.exists():
        key.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        make_key(key, "testbed-lab")
    public = key.with_suffix(".pub")
    if not public.exists():
        public.write_bytes(_public_key(key))
    elsewhere = home / _USER_KEY
    if not elsewhere.exists() or elsewhere.read_bytes() != key.read_bytes():
        elsewhere.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.copy(key, elsewhere)
    return key


def make_key(path: Path, comment: str) -> None:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)],
        check=True,
        stdin=subprocess.DEVNULL,
    )


def _public_key(key: Path) -> bytes:
    made = subprocess.run(
        ["ssh-keygen", "-y", "-P", "", "-f", str(key)], stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    if made.returncode != 0:
        said = made.stderr.decode(errors="replace").strip().split("\n")[-1]
        raise LabError(f"{key} yields no public key ({said}): remove it, and the next lab makes another")
    return made.stdout


def ensure_ray_token(home: Path) -> Path:
    """`~/.ray/auth_token`, which Ray (token authentication) makes for a local cluster, but not before `ray up`."""
    path = home / ".ray" / "auth_token"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
    return path
