"""The fork server of a machine, as its owner sees it: it is launched, watched, and ended with all that it has started.

What it does is `fork_server_process`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from testbed.emulation.processes.fork_messages import OWN, receive, send
from testbed.emulation.processes.forked_process import connected, fork_server_socket
from testbed.emulation.processes.janitor import Janitor
from testbed.emulation.processes.process import last_lines

LAUNCHED_WITHIN_S = 30.0
PING_PERIOD_S = 2.0
STARTS_WITHIN_S = 60.0
ANSWERS_WITHIN_S = 10.0


def launch(janitor: Janitor, folder: Path, env: Mapping[str, str], log: Path) -> None:
    """Have one listen in `folder`, as a descendant of the janitor: so whatever hides from the supervisors of this
    machine does not hide from the janitor.

    `env` is what a container could read in the server's own environment. Raises ChildProcessError.
    """
    program = [sys.executable, "-m", "testbed.emulation.processes.fork_server_process"]
    code = janitor.run([*program, str(fork_server_socket(folder))], env, log, LAUNCHED_WITHIN_S)
    if code != 0:
        raise ChildProcessError(f"the fork server of this machine did not start: {last_lines(log, 1) or code}")


class ForkServer:
    """`title` is what a person calls it; `broken(what)` is told when it is lost."""

    def __init__(self, title: str, log: Path, broken: Callable[[str], None]) -> None:
        self._title = title
        self._log = log
        self._broken = broken
        self._connection: socket.socket | None = None
        self._heard = asyncio.Event()
        self._ended = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None

    def own(self, folder: Path) -> None:
        """From now on it ends with this process. Nobody waits here until it is up. Raises OSError."""
        self._connection = connected(fork_server_socket(folder))
        loop = asyncio.get_running_loop()
        loop.add_reader(self._connection, self._hear)
        self._watching = loop.create_task(self._watch(self._connection))

    async def stop(self) -> None:
        """End it and all that it has started."""
        if self._watching is not None and self._connection is not None:
            self._watching.cancel()
            self._watching = None
            with contextlib.suppress(OSError):
                self._connection.shutdown(socket.SHUT_WR)
            await self._ended.wait()
            self._connection.close()

    async def _watch(self, connection: socket.socket) -> None:
        within_s = STARTS_WITHIN_S
        try:
            while not self._ended.is_set():
                self._heard.clear()
                send(connection, OWN)
                await asyncio.wait_for(self._heard.wait(), within_s)
                within_s = ANSWERS_WITHIN_S
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._ended.wait(), PING_PERIOD_S)
            words = last_lines(self._log)
            self._broken(f"{self._title} died" + (f": {words}" if words else ""))
        except OSError as error:
            # A time-out is one.
            why = (
                f"does not answer (for {within_s:g} s by now)" if isinstance(error, TimeoutError) else f"died: {error}"
            )
            self._broken(f"{self._title} {why}")

    def _hear(self) -> None:
        assert self._connection is not None
        with contextlib.suppress(BlockingIOError):
            if receive(self._connection) is None:
                asyncio.get_running_loop().remove_reader(self._connection)
                self._ended.set()
            self._heard.set()
