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


class LoopThread:
    """One loop in one daemon thread. `loop` and `keep` are for what runs inside, the rest for any other thread."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.loop: asyncio.AbstractEventLoop
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self.loop = uvloop.new_event_loop()
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

        self.loop.call_soon_threadsafe(run)
        return future.result(_CALL_TIMEOUT_S)

    def wait(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """As `call`, for a coroutine."""
        self._check_runs()
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(_CALL_TIMEOUT_S)

    def stop(self, close: Callable[[], None]) -> None:
        """Cancel what is kept, run `close` in the loop and end the thread. May be called twice."""
        if self._thread is None:
            return

        def end() -> None:
            for task in tuple(self._tasks):
                task.cancel()
            close()

        self.call(end)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(_CALL_TIMEOUT_S)
        self._thread = None

    def keep(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine beside everything else; the thread's end cancels it."""
        task = self.loop.create_task(coroutine)
        # The loop holds tasks by weak references only.
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _check_runs(self) -> None:
        if self._thread is None:
            raise RuntimeError(f"the {self.name} is not running: call start() first")

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        ask_to_be_punctual()
        try:
            self.loop.run_forever()
            # What was cancelled or closed at last needs a few turns more.
            self.loop.run_until_complete(asyncio.gather(*self._tasks, return_exceptions=True))
            self.loop.run_until_complete(asyncio.sleep(0))
        finally:
            self.loop.close()
