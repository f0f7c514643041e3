"""The process of a master, as its supervisor has it: one life of it, from its start to its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any

from testbed.control.masters.messages import Answered
from testbed.emulation.processes.master_messages import Asked, FromMaster, ToMaster
from testbed.emulation.processes.process import ChildProcess
from testbed.network.wire.relay_messages import read_message, write_message


class ControlPlaneDown(Exception):
    """No master answers; the message says why. What was asked may be done all the same."""


class MasterLife:
    """A process that is warm, and begins with the first message. `heard(message)` is called with what it says by
    itself, and `died(code)` when it has ended though nobody here has killed it."""

    def __init__(
        self,
        env: Mapping[str, str],
        log: Path,
        heard: Callable[[FromMaster], None],
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
                # Masters have machines of their own: nodes that boot must not keep them from hearing each other.
                own_session=True,
            )
        self._waiting: list[ToMaster] = []
        self._numbers = count()
        self._open: dict[int, asyncio.Future[Any]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._task = asyncio.get_running_loop().create_task(self._talk(ours))

    def send(self, message: ToMaster) -> None:
        if self._writer is None:
            self._waiting.append(message)
        elif not self._writer.is_closing():
            write_message(self._writer, message)

    async def ask(self, method: str, *arguments: object) -> Any:
        """`streams`, or what can be asked of one that leads (`control.masters.leading`). Raises what that raises, and
        ControlPlaneDown."""
        number = next(self._numbers)
        answer = self._open[number] = asyncio.get_running_loop().create_future()
        self.send(Asked(number, method, arguments))
        try:
            return await answer
        finally:
            del self._open[number]

    def give_up(self, why: str) -> None:
        """Whoever waits for an answer waits no more."""
        for answer in self._open.values():
            if not answer.done():
                answer.set_exception(ControlPlaneDown(why))

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
                for message in await read_message(reader):
                    self._take(message)
        self._writer.close()
        self.give_up("the control plane died before it has answered")
        code = await self._process.wait()
        if not self._killed:
            self._died(code)

    def _take(self, message: FromMaster) -> None:
        match message:
            case Answered(number, answer, error):
                asked = self._open.get(number)
                if asked is not None and not asked.done():
                    asked.set_result(answer) if error is None else asked.set_exception(error)
            case _:
                self._heard(message)
