"""Cleans up after a run however it ends, `kill -9` included.

A small process of its own that waits for its standard input to close, which the kernel does when the command is gone.
What it was asked to run, and whatever that left behind, are its descendants to the end: the kernel gives orphans to the
nearest ancestor that asked for them. So it needs no sign by which to know them, and none gets away. Then it ends every
process that carries the run's mark in its environment, and removes the run's folder.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import orjson
from tenacity import retry, retry_if_result, stop_after_delay, wait_fixed

from testbed.emulation.processes.process import adopt_orphans, kill_descendants, kill_marked

RUN_VARIABLE = "TESTBED_RUN"
RUN_PREFIX = "testbed-"
REMOVED_WITHIN_S = 30.0
"""Longer than Ray takes to end the actors of who is gone."""


class Janitor:
    """Started before the first process of a run; `dismiss` lets it clean up and waits for it.

    `folder` is the run's on this machine, for temporary files and closed to other users.
    """

    def __init__(self, run_id: str | None = None) -> None:
        """Without a `run_id`, the name of the folder is the run's mark."""
        # Unix sockets have short paths; the folder of a run's results may have a long one.
        self.folder = Path(tempfile.gettempdir(), RUN_PREFIX + secrets.token_hex(4))
        self.run_id = run_id or self.folder.name
        env = {name: value for name, value in os.environ.items() if name != RUN_VARIABLE}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "testbed.emulation.processes.janitor", self.run_id, str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=env,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._orders: IO[bytes] = self._process.stdin
        self._answers: IO[bytes] = self._process.stdout
        # Not before there is somebody to remove it.
        self.folder.mkdir(0o700)

    def run(self, arguments: Sequence[str], env: Mapping[str, str], output: Path, deadline_s: float) -> int | None:
        """Have a program run to its end and return its exit code, or None if it takes longer.

        What it leaves behind goes on until the run ends, and no longer. Raises OSError.
        """
        order = {"arguments": list(arguments), "env": dict(env), "output": str(output)}
        self._orders.write(orjson.dumps(order, option=orjson.OPT_APPEND_NEWLINE))
        self._orders.flush()
        if not select.select([self._answers], [], [], deadline_s)[0]:
            return None
        answer = self._answers.readline()
        if not answer:
            raise ChildProcessError("the process that cleans up after the run is gone")
        return int(answer)

    def dismiss(self) -> None:
        """Let it clean up, and return when it has."""
        with self._process, contextlib.suppress(BrokenPipeError):
            self._orders.close()
            self._answers.read()


def main() -> None:
    run_id, folder = sys.argv[1:]
    if os.fork():
        # Whoever ends the children of the process that it watches must not find it among them.
        os._exit(0)
    adopt_orphans()
    while order := sys.stdin.buffer.readline():
        code = _carry_out(**orjson.loads(order))
        if code is None:
            break
        print(code, flush=True)
    kill_descendants()
    kill_marked(RUN_VARIABLE, run_id)
    remove_folder(folder)


def remove_folder(folder: Path | str) -> None:
    """Remove it. Others who still have to end, such as actors, may make files there meanwhile: until it is gone, then,
    or REMOVED_WITHIN_S have passed."""

    @retry(
        stop=stop_after_delay(REMOVED_WITHIN_S),
        wait=wait_fixed(0.05),
        retry=retry_if_result(bool),
        retry_error_callback=lambda _: None,
    )
    def sweep() -> bool:
        shutil.rmtree(folder, ignore_errors=True)
        return os.path.lexists(folder)

    sweep()


def _carry_out(arguments: list[str], env: dict[str, str], output: str) -> int | None:
    """The exit code of a program; None as soon as nobody waits for it any more."""
    with open(output, "ab") as log:
        process = subprocess.Popen(arguments, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    pidfd = os.pidfd_open(process.pid)
    try:
        ended, _, _ = select.select([pidfd, sys.stdin.buffer], [], [])
        return process.wait() if pidfd in ended else None
    finally:
        os.close(pidfd)


if __name__ == "__main__":
    main()
