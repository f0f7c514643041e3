"""Kills the command at random moments of a run and looks for what is left on the machine: `make soak`.

Whatever the command started, however it hides, descends from this program, which adopts orphans. Prints a line for each
kill; the exit code is 1 if anything was left.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

from testbed.emulation.processes.process import adopt_orphans

SCENARIO = Path(__file__).parent / "emulation" / "scenarios" / "small.yaml"
COMMAND = [sys.executable, "-c", "from testbed.cli import main; main()"]
LOAD = "spec.load.duration=5s"
GONE_WITHIN_S = 15.0
SHARED_MEMORY = Path("/dev/shm")
LISTENING = (psutil.CONN_LISTEN, psutil.CONN_NONE)


def descendants() -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def sockets(processes: Iterable[psutil.Process]) -> set[object]:
    """Addresses at which they listen."""
    held: set[object] = set()
    for process in processes:
        with contextlib.suppress(psutil.Error):
            held |= {each.laddr for each in process.net_connections("all") if each.laddr and each.status in LISTENING}
    return held


def still_held(addresses: set[object]) -> set[object]:
    return addresses & {each.laddr for each in psutil.net_connections("all") if each.status in LISTENING}


def paths(folders: Iterable[Path]) -> set[Path]:
    return {path for folder in folders if folder.exists() for path in folder.iterdir()}


def said(output: Path) -> str:
    lines = output.read_text().splitlines()
    return lines[-1].strip() if lines else "nothing said yet"


def start(own: Path) -> subprocess.Popen[bytes]:
    env = {**os.environ, "HOME": str(own / "home"), "TMPDIR": str(own / "tmp")}
    with (own / "output").open("wb") as output:
        return subprocess.Popen(
            [*COMMAND, "run", str(SCENARIO), "--out", str(own / "runs"), "--set", LOAD],
            stdout=output,
            stderr=output,
            env=env,
            start_new_session=True,
        )


def prepare(own: Path) -> None:
    for name in ("home", "tmp"):
        (own / name).mkdir()


def kill_one(own: Path, after_s: float) -> tuple[str, list[object]]:
    """What to tell of it, and what it left."""
    prepare(own)
    watched = (own / "home", own / "tmp", SHARED_MEMORY)
    before = paths(watched)
    command = start(own)
    with contextlib.suppress(subprocess.TimeoutExpired):
        command.wait(after_s)
    held, count, stage = sockets(descendants()), len(descendants()), said(own / "output")
    command.kill()
    killed_s = time.monotonic()
    command.wait()
    left: list[object] = []
    while time.monotonic() < killed_s + GONE_WITHIN_S:
        left = [*descendants(), *still_held(held), *(paths(watched) - before)]
        if not left:
            break
        time.sleep(0.02)
    gone_s = time.monotonic() - killed_s
    return f"{after_s:6.2f} s  {count:3d} processes {len(held):3d} sockets  gone after {gone_s:5.2f} s  {stage}", left


def length_s(own: Path) -> float:
    """How long a run takes that is not killed."""
    prepare(own)
    begun_s = time.monotonic()
    start(own).wait()
    return time.monotonic() - begun_s


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    adopt_orphans()
    chance = random.Random(arguments.seed)
    failures = 0
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        whole_s = length_s(Path(folder))
        print(f"a whole run takes {whole_s:.1f} s; {arguments.kills} are killed, seed {arguments.seed}", flush=True)
    for number in range(1, arguments.kills + 1):
        with tempfile.TemporaryDirectory(prefix="soak-") as folder:
            told, left = kill_one(Path(folder), chance.uniform(0.0, whole_s))
        print(f"{number:2d}  {told}", flush=True)
        for each in left:
            print(f"    LEFT: {each}", flush=True)
        failures += bool(left)
    print(f"{failures} of {arguments.kills} left something")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
