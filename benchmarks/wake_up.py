"""How late the relay's timer wakes up, against the event loop's own, which has a granularity of a millisecond."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from statistics import median

from benchmarks.row import Row
from testbed.network.wire.timer import PreciseTimer

SLEEP_S = 0.0003
SLEEPS = 1000


def measure() -> Iterator[Row]:
    ours_ms, loops_ms = asyncio.run(_lateness_ms())
    yield Row(
        f"wake-up after {SLEEP_S * 1e3:g} ms",
        f"{ours_ms:.3f} ms late in the median",
        f"{loops_ms:.3f} ms by asyncio.sleep",
        f"{ours_ms:.3f} ms",
        "<= 0.2 ms",
    )


async def _lateness_ms() -> tuple[float, float]:
    with PreciseTimer(asyncio.get_running_loop()) as timer:
        return await _median_ms(timer.sleep), await _median_ms(asyncio.sleep)


async def _median_ms(sleep: Callable[[float], Awaitable[object]]) -> float:
    late_s = []
    for _ in range(SLEEPS):
        due_s = time.monotonic() + SLEEP_S
        await sleep(SLEEP_S)
        late_s.append(abs(time.monotonic() - due_s))
    return median(late_s) * 1e3
