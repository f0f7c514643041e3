"""Which clusters of this user are up on this machine: a folder for each, closed to others, by the name of its run.

A folder belongs to who holds the lock on its file, which the kernel frees when that process is gone, however it went.
So a folder without an owner is one whose cluster was not taken down. Whoever meets it removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import orjson

_FILE = "session.json"
_SOCKET = "socket"


class RegistryUnsafe(Exception):
    """The place for folders is not this user's alone; the message says what to do."""


_LOOKED_AT_S = 0.5
"""Longer than whoever looks at a folder holds its lock."""


class NameTaken(Exception):
    """A cluster of that name is up."""


@dataclass(frozen=True, slots=True)
class Registered:
    """A cluster that is up, coming up, or gone without having been taken down. `since_s` is epoch time."""

    name: str
    pid: int
    run_dir: str
    scenario: str
    since_s: float


def place() -> Path:
    """Made if need be. Raises RegistryUnsafe."""
    given = os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(given) / "testbed" if given else Path(tempfile.gettempdir()) / f"testbed-of-{os.getuid()}"
    try:
        with contextlib.suppress(FileExistsError):
            folder.mkdir(0o700)
        found = folder.lstat()
    except OSError as error:
        raise RegistryUnsafe(f"{folder}: {error.strerror}; set XDG_RUNTIME_DIR to a folder of your own") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise RegistryUnsafe(f"{folder}: must be a folder of yours that is closed to others (chmod 700)")
    return folder


def socket_of(name: str) -> Path:
    """Where a cluster of that name is asked."""
    return place() / name / _SOCKET


def log_of(name: str) -> Path:
    """What a detached cluster of that name says, which has no terminal. It stays after an end that was not orderly."""
    return place() / f"{name}.log"


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """During the block no other process of this user is in such a block. Raises RegistryUnsafe."""
    folder = os.open(place(), os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


@contextlib.contextmanager
def registered(name: str, run_dir: Path, scenario: str) -> Iterator[None]:
    """During the block a cluster of that name is this process's. Raises NameTaken or RegistryUnsafe."""
    folder = place() / name
    deadline_s = time.monotonic() + _LOOKED_AT_S
    while True:
        with contextlib.suppress(FileExistsError):
            folder.mkdir(0o700)
        with contextlib.suppress(FileNotFoundError):
            file = os.open(folder / _FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            if not _owned(file):
                os.close(file)
                if time.monotonic() > deadline_s:
                    raise NameTaken(name)
                time.sleep(0.01)
                continue
            # Whoever found it without an owner may have removed it before this process had the lock.
            if (folder / _FILE).exists() and os.fstat(file).st_ino == (folder / _FILE).stat().st_ino:
                break
            os.close(file)
    try:
        (folder / _SOCKET).unlink(missing_ok=True)
        content = orjson.dumps(asdict(Registered(name, os.getpid(), str(run_dir), scenario, time.time())))
        os.ftruncate(file, 0)
        os.pwrite(file, content, 0)
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(file)


def found() -> dict[str, tuple[Registered, Literal["there", "gone"]]]:
    """Every cluster of this user, by name; what is gone is told once. Raises RegistryUnsafe."""
    clusters: dict[str, tuple[Registered, Literal["there", "gone"]]] = {}
    for folder in sorted(place().iterdir()):
        with contextlib.suppress(OSError, ValueError, TypeError):
            file = os.open(folder / _FILE, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            gone = _owned(file)
            try:
                cluster = Registered(**orjson.loads(os.read(file, 1 << 16)))
                clusters[cluster.name] = (cluster, "gone" if gone else "there")
            finally:
                if gone:
                    shutil.rmtree(folder, ignore_errors=True)
                os.close(file)
    return clusters


def _owned(file: int) -> bool:
    """Whether the lock was free, and is this process's now."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
