"""Ctrl-C and SIGTERM: the first ends a command in good order, the second at once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

EXIT_INTERRUPTED = 130


class RunInterrupted(Exception):
    """The user ended the run before there was anything to measure."""


async def unless(interrupt: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Do the work, or raise RunInterrupted as soon as that happens."""
    task, waiting = asyncio.create_task(work), asyncio.create_task(interrupt.wait())
    try:
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise RunInterrupted("interrupted before the load began: nothing was measured")
        task.result()
    finally:
        waiting.cancel()
        task.cancel()


class Interrupts:
    """Both signals, from `install` on. The first calls the listener; without one it raises KeyboardInterrupt."""

    def __init__(self) -> None:
        self._came = False
        self._listener: Callable[[], object] | None = None

    def install(self) -> None:
        """Take the signals, back as well from whoever took them meanwhile."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self.interrupt())

    @contextlib.contextmanager
    def heard_by(self, listener: Callable[[], object]) -> Iterator[None]:
        """During the block the first signal calls `listener`, in the main thread and between any two instructions."""
        before, self._listener = self._listener, listener
        try:
            yield
        finally:
            if self._listener is listener:
                self._listener = before

    def nothing_left(self) -> None:
        """All is done and kept: from now on the first signal does nothing."""
        self._listener = lambda: None

    def interrupt(self) -> None:
        """What either signal does."""
        if self._came:
            os._exit(EXIT_INTERRUPTED)  # the janitor ends what is left
        self._came = True
        if self._listener is None:
            raise KeyboardInterrupt
        self._listener()
