"""The control path from one place to another: Ray carries the messages, the link table decides whether and when.

A message waits while the link is cut in either direction (its TCP connection could not be opened) and takes the
link's declared delay. Order is kept. Ray calls themselves know nothing of the emulated network.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from testbed.network.links import LinkTable

T = TypeVar("T")


class ControlChannel(Generic[T]):
    """Messages from `source` to `destination`; `deliver` is called with everything that is due, oldest first.

    `links()` is how they are now. `supersede(messages)` may thin out what waits behind a cut: a receiver that was cut
    off needs the latest state, not its history.
    """

    def __init__(
        self,
        links: Callable[[], LinkTable],
        source: str,
        destination: str,
        deliver: Callable[[list[T]], Awaitable[object]],
        supersede: Callable[[list[T]], list[T]] = lambda messages: messages,
    ) -> None:
        self._links = links
        self._source = source
        self._destination = destination
        self._deliver = deliver
        self._supersede = supersede
        self._waiting: deque[tuple[float, T]] = deque()
        self._wake = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    def send(self, message: T) -> None:
        """Raises what `deliver` raised, if that ended the channel."""
        if self._task.done():
            self._task.result()
        delay_s = self._links().quality(self._source, self._destination).delay_s
        self._waiting.append((asyncio.get_running_loop().time() + delay_s, message))
        self._wake.set()

    def links_changed(self) -> None:
        """Look again whether the way is open, and whether what is on it would arrive sooner if it were sent now."""
        arrival_s = asyncio.get_running_loop().time() + self._links().quality(self._source, self._destination).delay_s
        self._waiting = deque((min(due_s, arrival_s), message) for due_s, message in self._waiting)
        self._wake.set()

    def drop_waiting(self) -> None:
        """Forget what was not delivered: the sender lost its memory (power off)."""
        self._waiting.clear()

    async def close(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            if not self._waiting or not self._links().passable(self._source, self._destination):
                await self._wake.wait()
                continue
            wait_s = self._waiting[0][0] - loop.time()
            if wait_s > 0:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), wait_s)
                continue
            due = []
            while self._waiting and self._waiting[0][0] <= loop.time():
                due.append(self._waiting.popleft()[1])
            await self._deliver(self._supersede(due))
