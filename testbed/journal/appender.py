"""Appends to a journal while its owner goes on: writes that come while the disk is busy are made durable together."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable

from testbed.consensus.outputs import Write
from testbed.journal.journal import DISK_FAILED, Journal


class Appender:
    """In the thread of its loop, but for the disk. What the process prints last goes to `say`."""

    def __init__(self, journal: Journal, say: Callable[[str], None]) -> None:
        self._journal = journal
        self._say = say
        self._writes: list[Write] = []
        self._to_write = asyncio.Event()

    def add(self, write: Write) -> None:
        self._writes.append(write)
        self._to_write.set()

    async def durable(self) -> AsyncIterator[list[Write]]:
        """The writes of each time, once the disk has them. Ends the process, by DISK_FAILED, when the disk fails:
        without one nobody can lead or vote, and what is on it is whole. Who restarts it tries again."""
        loop = asyncio.get_running_loop()
        while True:
            await self._to_write.wait()
            self._to_write.clear()
            writes, self._writes = self._writes, []
            try:
                await loop.run_in_executor(None, self._journal.append, writes)
            except OSError as error:
                self._say(f"cannot write to {self._journal.path}: {error.strerror}; the replica ends")
                os._exit(DISK_FAILED)
            yield writes
