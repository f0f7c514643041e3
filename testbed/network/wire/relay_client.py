"""The way to a link relay's process: questions to it, from any event loop of its machine."""

from __future__ import annotations

import asyncio
from itertools import count
from pathlib import Path
from typing import Any

from testbed.network.wire.relay_messages import read_message, write_message

ANSWERS_WITHIN_S = 10.0
_HANGS = f"does not answer (for {ANSWERS_WITHIN_S:g} s by now)"


class RelayLost(Exception):
    """The process of a link relay ended or does not answer; the message goes on behind its name."""


class RelayClient:
    """One connection. What can be asked is what `relay_process` says."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._numbers = count()
        self._open: dict[int, asyncio.Future[Any]] = {}
        self._lost: str | None = None
        self._reading = asyncio.get_running_loop().create_task(self._read(reader))

    @classmethod
    async def connected(cls, path: Path) -> RelayClient:
        """Raises RelayLost where nobody listens."""
        try:
            return cls(*await asyncio.open_unix_connection(path))
        except OSError as error:
            raise RelayLost(f"is not there: {error.strerror}") from error

    async def ask(self, method: str, *arguments: object, within_s: float = ANSWERS_WITHIN_S) -> Any:
        """The answer. Raises RelayLost, and what is raised there."""
        if self._lost is not None:
            raise RelayLost(self._lost)
        number = next(self._numbers)
        answer = self._open[number] = asyncio.get_running_loop().create_future()
        write_message(self._writer, (number, method, arguments))
        try:
            return await asyncio.wait_for(answer, within_s)
        except TimeoutError:
            self._lose(_HANGS)
            raise RelayLost(_HANGS) from None
        finally:
            self._open.pop(number, None)

    def close(self) -> None:
        """Ask no more."""
        self._lose("is not asked any more")
        self._reading.cancel()
        self._writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                number, answer, error = await read_message(reader)
                future = self._open.get(number)
                if future is None or future.done():
                    continue
                if error is None:
                    future.set_result(answer)
                else:
                    future.set_exception(error)
        except (asyncio.IncompleteReadError, ConnectionError):
            self._lose("has ended")

    def _lose(self, why: str) -> None:
        self._lost = self._lost or why
        for future in self._open.values():
            if not future.done():
                future.set_exception(RelayLost(self._lost))
