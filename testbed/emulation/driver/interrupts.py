"""Ctrl-C, SIGTERM, and SIGHUP of a terminal that is closed: the first ends a command in good order, the second at
once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

T = TypeVar("T")

EXIT_INTERRUPTED = 130


def take_signals(interrupt: Callable[[], object], hang_up: Callable[[], object]) -> None:
    """`interrupt` is what Ctrl-C and SIGTERM do from now on, `hang_up` what SIGHUP does where nohup does not keep it
    off."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: interrupt())
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: hang_up())


class RunInterrupted(Exception):
    """The user ended the run before there was anything to measure."""


async def unless(interrupt: asyncio.Event, work: Coroutine[Any, Any, T]) -> T:
    """Do the work, or raise RunInterrupted as soon as that happens, and the work has given back what it had."""
    task, waiting = asyncio.create_task(work), asyncio.create_task(interrupt.wait())
    try:
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise RunInterrupted("interrupted before the load began: nothing was measured")
        return task.result()
    finally:
        waiting.cancel()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Interrupts:
    """The signals, from `install` on. The first calls the listener; without one it raises KeyboardInterrupt."""

    def __init__(self) -> None:
        self._came = False
        self._unheard = False
        """It came when nobody listened, and what it raised may have been lost: nothing leaves a destructor, nor many a
        callback of C."""
        self._listener: Callable[[], object] | None = None

    def install(self) -> None:
        """Take the signals, back as well from whoever took them meanwhile."""
        take_signals(self.interrupt, self._hang_up)

    @contextlib.contextmanager
    def heard_by(self, listener: Callable[[], object]) -> Iterator[None]:
        """During the block the first signal calls `listener`, in the main thread and between any two instructions."""
        before, self._listener = self._listener, listener
        try:
            if self._unheard:
                self._unheard = False
                listener()
            yield
        finally:
            if self._listener is listener:
                self._listener = before

    def nothing_left(self) -> None:
        """All is done and kept: from now on the first signal does nothing."""
        self._listener = lambda: None

    def interrupt(self) -> None:
        """What Ctrl-C and SIGTERM do."""
        if self._came:
            os._exit(EXIT_INTERRUPTED)  # the janitor ends what is left
        self._came = True
        if self._listener is None:
            self._unheard = True
            raise KeyboardInterrupt
        self._listener()

    def _hang_up(self) -> None:
        """As the first of the others. A terminal that is closed may send it twice, once by its shell: nobody is in a
        hurry."""
        if not self._came:
            self.interrupt()
