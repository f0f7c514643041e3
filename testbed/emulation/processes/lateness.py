"""How late the event loop of an actor's process is: whatever its actor does then is late, too.

Owns the measurement. Whether it is held against a run is `results.judge`; what bytes wait for is a relay's, and is in
the samples of its links.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

PERIOD_S = 1.0
"""Not more often: dozens of processes would wake up for nothing."""
NOTED_S = 0.1
"""What is less can change nothing that is emulated, and is the daily bread of a machine with few cores."""
HELD_UP_S = 0.02
"""From this on, what a process saw meanwhile may be its own doing."""


class LoopWatch:
    """Notes when its loop came late to a timer: to one of its own, once a second, and to those that it is told of.

    `note(due_s, late_s)` is called for every time that the loop was held up for NOTED_S or more, with monotonic
    seconds: the loop was held up for at least `late_s`, and at `due_s`.
    """

    def __init__(self, note: Callable[[float, float], None]) -> None:
        self._note = note
        self._due_s = 0.0
        self._noted_until_s = 0.0
        self._held_up_until_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """In the loop that is to be watched. May be called twice."""
        if self._timer is None:
            self._set()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def woke(self, due_s: float) -> bool:
        """A timer that was due then has come only now. Whether that is late (by HELD_UP_S)."""
        now_s = time.monotonic()
        held_up = now_s - due_s >= HELD_UP_S
        if held_up:
            self._held_up_until_s = now_s
        # Of several timers that were held up together, the first tells all.
        if now_s - due_s >= NOTED_S and due_s > self._noted_until_s:
            self._noted_until_s = now_s
            self._note(due_s, now_s - due_s)
        return held_up

    def held_up_since(self, since_s: float) -> bool:
        """Whether a timer has come late (by HELD_UP_S) after that monotonic second."""
        return self._held_up_until_s > since_s

    def _set(self) -> None:
        self._due_s = time.monotonic() + PERIOD_S
        self._timer = asyncio.get_running_loop().call_later(PERIOD_S, self._wake)

    def _wake(self) -> None:
        self.woke(self._due_s)
        self._set()
