"""Cleans up after a run however it ends, `kill -9` included.

A small process of its own that waits for its standard input to close, which the kernel does when the command is gone,
then ends every process that carries the run's mark in its environment and removes the run's sockets.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from testbed.emulation.process import kill_marked

RUN_VARIABLE = "TESTBED_RUN"
RUN_PREFIX = "testbed-"
"""Of a run's mark, and of the folders that it has in the machine's folder for temporary files."""


class Janitor:
    """Started before the first process of a run; `dismiss` lets it clean up and waits for it."""

    def __init__(self, run_id: str, socket_dir: Path) -> None:
        env = {name: value for name, value in os.environ.items() if name != RUN_VARIABLE}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "testbed.emulation.janitor", run_id, str(socket_dir)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=env,
            start_new_session=True,
        )

    def dismiss(self) -> None:
        """Let it clean up, and return when it has."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.read()
        self._process.wait()


def main() -> None:
    run_id, socket_dir = sys.argv[1:]
    if os.fork():
        # Whoever ends the children of the process that it watches must not find it among them.
        os._exit(0)
    sys.stdin.buffer.read()
    kill_marked(RUN_VARIABLE, run_id)
    shutil.rmtree(socket_dir, ignore_errors=True)


if __name__ == "__main__":
    main()
