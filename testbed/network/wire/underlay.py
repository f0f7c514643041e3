"""What the real network to another machine takes, which is part of what is declared of every link that it carries."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from testbed.network.directed_link import Link
from testbed.network.wire.clock_probe import ClockReading, RemoteClock
from testbed.network.wire.loop_thread import Tasks
from testbed.network.wire.tunnel import Tunnel

_UNDERLAY_PERIOD_S = 1.0
_UNDERLAY_PINGS = 10


class Underlay:
    """What the real network to another machine takes one way, told to all links that it carries.

    Half the shortest of the last round trips: longer ones waited for a core somewhere. The first are asked for in a
    row, so that the estimate is good at once. Without answers the last one stays.
    """

    def __init__(self, tasks: Tasks, tunnel: Tunnel) -> None:
        self._links: dict[Link, None] = {}
        self._round_trips_s: deque[float] = deque(maxlen=_UNDERLAY_PINGS)
        self._clock = RemoteClock(tasks, tunnel, _UNDERLAY_PERIOD_S, self._heard)
        self._clock.start()

    def carry(self, links: Iterable[Link]) -> None:
        self._links.update(dict.fromkeys(links))
        self._tell()

    def close(self) -> None:
        self._clock.close()

    def _heard(self, reading: ClockReading) -> None:
        self._round_trips_s.append(reading.round_trip_s)
        if len(self._round_trips_s) < _UNDERLAY_PINGS:
            self._clock.ask()
        self._tell()

    def _tell(self) -> None:
        for link in self._links:
            link.underlay_s = min(self._round_trips_s, default=0.0) / 2
