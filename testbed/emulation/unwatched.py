"""What an actor does while nobody looks at what comes of it: timers, tasks, answers to reports."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Iterator
from typing import Any


class Unwatched:
    """Keeps the first exception until somebody asks: a defect must not pass for something slow."""

    def __init__(self) -> None:
        self._failure: Exception | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def check(self) -> None:
        """Raises what went wrong, if anything did."""
        if self._failure is not None:
            raise self._failure

    @contextlib.contextmanager
    def work(self) -> Iterator[None]:
        """What is done inside is watched, and raises as it would without."""
        try:
            yield
        except Exception as failure:
            self._failure = self._failure or failure
            raise

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task of the running loop. Cancelled is as good as done."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and isinstance(failure := task.exception(), Exception):
            self._failure = self._failure or failure
