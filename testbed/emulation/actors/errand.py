"""One command on a machine, for somebody on another one, who has what it printed and left brought home at its end.

Nothing of it stays: the janitor of the machine, who waits for the end of this actor, ends and removes what is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from testbed.emulation.actors.machine import PIECE_BYTES_MAX, Versions
from testbed.emulation.actors.worker_setup import leave_out_unused_packages
from testbed.emulation.processes.janitor import RUN_VARIABLE, Janitor
from testbed.emulation.processes.process import ChildProcess

leave_out_unused_packages()

LEFT = "left"
"""The folder into which the command puts what is to be brought home, from where it runs."""
PRINTED = "printed.txt"


class Errand:
    """An actor."""

    def __init__(self) -> None:
        self._janitor = Janitor()
        self._folder = self._janitor.folder
        (self._folder / LEFT).mkdir()
        self._process: ChildProcess | None = None

    async def versions(self) -> Versions:
        return Versions.here()

    async def start(self, arguments: Sequence[str], files: Mapping[str, bytes]) -> None:
        """Have this machine's Python run, in a folder with these files. Raises OSError."""
        for name, content in files.items():
            (self._folder / name).write_bytes(content)
        with contextlib.chdir(self._folder):
            self._process = ChildProcess(
                [sys.executable, *arguments],
                env={**os.environ, RUN_VARIABLE: self._janitor.run_id},
                output=self._folder / PRINTED,
            )

    async def wait(self, for_s: float) -> int | None:
        """The exit code, or None if the command still runs after that time.

        Whoever waits for longer asks again: an actor that Ray asks to end does so when it has answered.
        """
        assert self._process is not None, "start() comes first"
        try:
            return await asyncio.wait_for(self._process.wait(), for_s)
        except TimeoutError:
            return None

    async def interrupt(self) -> None:
        """Ask it to end in good order."""
        if self._process is not None and self._process.running:
            # Not SIGINT, which Ray blocks in its workers, and so in all that they start.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGTERM)

    async def printed(self) -> bytes:
        return (self._folder / PRINTED).read_bytes()

    async def left(self) -> dict[str, int]:
        """The files that there are now, relative to their folder, with their size in bytes."""
        root = self._folder / LEFT
        found = sorted(path for path in root.rglob("*") if path.is_file())
        return {str(path.relative_to(root)): path.stat().st_size for path in found}

    async def piece(self, name: str, offset: int) -> bytes:
        """Of one of these files."""
        with Path(self._folder, LEFT, name).open("rb") as file:
            file.seek(offset)
            return file.read(PIECE_BYTES_MAX)

    async def close(self) -> None:
        """End and remove what there is."""
        await asyncio.to_thread(self._janitor.dismiss)
