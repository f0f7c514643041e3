"""Timers that are accurate to well below a millisecond, on any asyncio event loop.

Owns one timerfd and the heap of what is due. uvloop's and asyncio's own timers count in whole milliseconds: a delay
of 0.3 ms fires at once there. Not thread-safe: use it from the thread that runs the loop.
"""

from __future__ import annotations

import asyncio
import ctypes
import heapq
import os
import select
from collections.abc import Callable
from itertools import count
from math import inf
from time import monotonic
from types import TracebackType

# PyDLL keeps the GIL during the call. The calls never block, and giving the GIL away costs up to a switch interval
# (5 ms) whenever another thread is busy.
_libc = ctypes.PyDLL(None, use_errno=True)
_CLOCK_MONOTONIC = 1
_TIMER_ABSTIME = 1

_LONG_WAIT_S = 0.004
_ROUSE_S = 0.0003
"""After a long wait a core is deep asleep, and how long it takes to wake up differs by tenths of a millisecond. So a
wake-up for nothing comes this much ahead; from the short wait that is left, the core is back soon."""

_STAY_MAX_S = 0.00016
"""How long nobody looks at sockets at most: a way over a link of 0.3 ms there and back."""


class _TimerSpec(ctypes.Structure):
    """struct itimerspec, of which only it_value is used: no timer here repeats."""

    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


class TimerHandle:
    """One pending callback."""

    __slots__ = ("callback", "early_s")

    def __init__(self, callback: Callable[[], object], early_s: float) -> None:
        self.callback: Callable[[], object] | None = callback
        self.early_s = early_s

    def cancel(self) -> None:
        """The callback will not run; nothing happens when it already has."""
        self.callback = None


class PreciseTimer:
    """Runs callbacks at absolute times of `time.monotonic`, in order of time and then of insertion.

    To arm a timer that is due soon costs as much as to move a payload (10 µs on a virtual machine, where it is a call
    of the hypervisor), and so does to go to sleep and wake up. So there are two ways to share wake-ups.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._heap: list[tuple[float, int, TimerHandle]] = []
        self._inserted = count()
        self._staying = False
        self._away_s = 0.0
        self._armed_for_s = inf
        self._spec = _TimerSpec()
        self._spec_pointer = ctypes.byref(self._spec)
        self._fd: int = _libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create: " + os.strerror(ctypes.get_errno()))
        self._until_armed = select.poll()
        self._until_armed.register(self._fd, select.POLLIN)
        loop.add_reader(self._fd, self._fire)

    def call_at(self, when_s: float, callback: Callable[[], object], early_s: float = 0.0) -> TimerHandle:
        """Run `callback` in the loop at `when_s` seconds of `time.monotonic`; a time in the past is due at once.

        Nobody wakes up for it who is up anyway at most `early_s` before.
        """
        handle = TimerHandle(callback, early_s)
        heapq.heappush(self._heap, (when_s, next(self._inserted), handle))
        if when_s < self._armed_for_s and not self._staying:
            self._arm(when_s)
        return handle

    def stay_until_next(self) -> None:
        """Once this turn of the loop is over, do not look at sockets again before the next callback, if that is near.

        For who has just heard of a payload: those that come meanwhile need no wake-up of their own. Nor is the timer
        armed before the turn is over.
        """
        if not self._staying:
            self._staying = True
            self._loop.call_soon(self._stay)

    def heard_s(self) -> float:
        """When what is read from a socket now has come, as far as can be told: in the middle of the time in which
        nobody looked."""
        return monotonic() - self._away_s / 2

    def _stay(self) -> None:
        self._staying = False
        next_s = self._heap[0][0] if self._heap else inf
        if next_s != self._armed_for_s and self._fd >= 0:
            self._arm(next_s)
        began_s = monotonic()
        if 0 < self._armed_for_s - began_s <= _STAY_MAX_S:
            self._until_armed.poll()
            self._away_s = monotonic() - began_s
            # After the turn in which what has come meanwhile is read.
            self._loop.call_soon(self._back)

    def _back(self) -> None:
        self._away_s = 0.0

    async def sleep(self, seconds: float) -> None:
        """Like asyncio.sleep, but on time."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = self._loop.create_future()

        def wake() -> None:
            # A task cancelled in this very turn of the loop has cancelled its future before it can cancel the handle.
            if not future.done():
                future.set_result(None)

        handle = self.call_at(monotonic() + seconds, wake)
        try:
            await future
        finally:
            handle.cancel()

    def close(self) -> None:
        """Forget every pending callback and free the descriptor. May be called twice."""
        self._heap.clear()
        self._armed_for_s = inf
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> PreciseTimer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _fire(self) -> None:
        # -inf keeps callbacks that set new timers from arming one after the other: that is done once, at the end.
        self._armed_for_s = -inf
        now, heap = monotonic(), self._heap
        try:
            while heap and heap[0][0] - heap[0][2].early_s <= now:
                callback = heapq.heappop(heap)[2].callback
                if callback is not None:
                    callback()
        finally:
            if self._fd >= 0 and not self._staying:
                # Also takes back the descriptor's readiness, so that it never has to be read.
                self._arm(heap[0][0] if heap else inf)

    def _arm(self, when_s: float) -> None:
        self._armed_for_s = when_s
        if _LONG_WAIT_S < when_s - monotonic() < inf:
            when_s -= _ROUSE_S
        # One nanosecond late rather than early: an early one would find nothing due. Zero would disarm the timer.
        at_ns = 0 if when_s == inf else max(1, int(when_s * 1e9) + 1)
        self._spec.value_s, self._spec.value_ns = divmod(at_ns, 1_000_000_000)
        if _libc.timerfd_settime(self._fd, _TIMER_ABSTIME, self._spec_pointer, None) < 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime: " + os.strerror(ctypes.get_errno()))
