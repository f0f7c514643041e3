"""A punctual thread that runs an event loop: whatever must not wait for the rest of its process lives in one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

import uvloop

from testbed.network.wire.scheduling import ask_to_be_punctual

_T = TypeVar("_T")

_CALL_TIMEOUT_S = 10.0


class Tasks:
    """What runs in one loop beside everything else. For the loop's thread only."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._tasks: set[asyncio.Task[None]] = set()

    def keep(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine until it ends or `cancel` is called."""
        task = self.loop.create_task(coroutine)
        # The loop holds tasks by weak references only.
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def cancel(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()

    async def ended(self) -> None:
        """Return when all have ended."""
        await asyncio.gather(*self._tasks, return_exceptions=True)


class LoopThread:
    """One loop in one daemon thread. `tasks` are for what runs inside, the rest for any other thread."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.tasks: Tasks
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self.tasks = Tasks(uvloop.new_event_loop())
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()

    def call(self, function: Callable[[], _T]) -> _T:
        """Run `function` in the loop and return what it returns. Raises what it raises."""
        self._check_runs()
        future: Future[_T] = Future()

        def run() -> None:
            try:
                future.set_result(function())
            except Exception as error:
                future.set_exception(error)

        self.tasks.loop.call_soon_threadsafe(run)
        return future.result(_CALL_TIMEOUT_S)

    def wait(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """As `call`, for a coroutine."""
        self._check_runs()
        return asyncio.run_coroutine_threadsafe(coroutine, self.tasks.loop).result(_CALL_TIMEOUT_S)

    def stop(self, close: Callable[[], None]) -> None:
        """Cancel what is kept, run `close` in the loop and end the thread. May be called twice."""
        if self._thread is None:
            return

        def end() -> None:
            self.tasks.cancel()
            close()

        self.call(end)
        self.tasks.loop.call_soon_threadsafe(self.tasks.loop.stop)
        self._thread.join(_CALL_TIMEOUT_S)
        self._thread = None

    def _check_runs(self) -> None:
        if self._thread is None:
            raise RuntimeError(f"the {self.name} is not running: call start() first")

    def _run(self) -> None:
        asyncio.set_event_loop(self.tasks.loop)
        ask_to_be_punctual()
        try:
            self.tasks.loop.run_forever()
            # What was cancelled or closed at last needs a few turns more.
            self.tasks.loop.run_until_complete(self.tasks.ended())
            self.tasks.loop.run_until_complete(asyncio.sleep(0))
        finally:
            self.tasks.loop.close()
