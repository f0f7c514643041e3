"""The process of a master, as its supervisor has it: one life of it, from its start to its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from testbed.emulation.processes.master_messages import FromMaster, ToMaster
from testbed.emulation.processes.process import ChildProcess
from testbed.network.wire.relay_messages import read_message, write_message


class MasterLife:
    """A process that is warm, and begins with the first message. `heard(messages)` is called with what it says, and
    `died(code)` when it has ended though nobody here has killed it."""

    def __init__(
        self,
        env: Mapping[str, str],
        log: Path,
        heard: Callable[[tuple[FromMaster, ...]], None],
        died: Callable[[int], None],
    ) -> None:
        self._heard = heard
        self._died = died
        self._killed = False
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = ChildProcess(
                [sys.executable, "-m", "testbed.emulation.processes.master_process", str(theirs.fileno())],
                env=env,
                output=log,
                inherited=[theirs.fileno()],
            )
        self._waiting: list[Any] = []
        self._writer: asyncio.StreamWriter | None = None
        self._task = asyncio.get_running_loop().create_task(self._talk(ours))

    def send(self, message: ToMaster) -> None:
        if self._writer is None:
            self._waiting.append(message)
        elif not self._writer.is_closing():
            write_message(self._writer, message)

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, number)

    async def kill(self) -> None:
        """As `kill -9` does; returns when it has ended, and all that it had said is heard."""
        self._killed = True
        self._process.kill()
        await asyncio.wait({self._task})

    async def _talk(self, ours: socket.socket) -> None:
        reader, self._writer = await asyncio.open_unix_connection(sock=ours)
        for message in self._waiting:
            write_message(self._writer, message)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                self._heard(await read_message(reader))
        self._writer.close()
        code = await self._process.wait()
        if not self._killed:
            self._died(code)
