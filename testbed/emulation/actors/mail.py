"""What the places of one process have to say to the master, in as few calls as possible: each costs a millisecond.

Every place has a control channel of its own, which says when the emulated link delivers what. From there on it is one
bag for all of them.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from functools import lru_cache

from testbed.control.messages import ConfigAcked, LeaseRenewed, Ping
from testbed.emulation.actors.reports import Letter, Reported
from testbed.emulation.actors.seam import Actor, tell

LEASES_WAIT_MAX_S = 0.1
"""How long leases wait for others, and so do clients' pings. A lease counts by when it was delivered, so that its
reader need not hurry, and who pings waits for the answer ten times as long."""
LEASES_WAIT_SHARE = 0.1
"""Of what a kubelet can be late, where that is little."""
ACKS_WAIT_S = 0.05
"""How long acknowledgements wait for others. They count by when they were given, and a change has one of each proxy: a
hundred proxies give theirs over some tenths of a second, a call of the master each if nobody waited."""
STALE_S = 0.05
"""A lease that was longer on its way than that was held up, and may be what makes its node ready again."""


@dataclass(slots=True)
class Mail:
    """To one master. One call at a time, as Ray keeps no order: what comes meanwhile goes with the next one."""

    master: Actor
    leases_wait_s: float
    _letters: list[Letter] = field(default_factory=list)
    _timer: asyncio.TimerHandle | None = None
    _carrying: asyncio.Task[None] | None = None

    def post(self, place: str, reports: list[Reported]) -> None:
        """What the link delivers now. Raises what the call before raised."""
        if self._carrying is not None and self._carrying.done():
            self._carrying.result()
        now_s = time.monotonic()
        self._letters.append(Letter(place, now_s, tuple(reports)))
        wait_s = min(self._patience_s(each, now_s) for each in reports)
        if wait_s == 0.0:
            self._go()
            return
        loop = asyncio.get_running_loop()
        if self._timer is None or loop.time() + wait_s < self._timer.when():
            self._stop_waiting()
            self._timer = loop.call_later(wait_s, self._go)

    def _patience_s(self, report: Reported, now_s: float) -> float:
        match report.event:
            case LeaseRenewed() | Ping() if now_s - report.at_s < STALE_S:
                return self.leases_wait_s
            case ConfigAcked():
                return ACKS_WAIT_S
        return 0.0

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _go(self) -> None:
        self._stop_waiting()
        if self._carrying is None or self._carrying.done():
            self._carrying = asyncio.create_task(self._carry())

    async def _carry(self) -> None:
        while self._letters:
            letters, self._letters = self._letters, []
            await tell(self.master, "report", letters)


@lru_cache(maxsize=5)
def mail_to(master: Actor, lease_patience_s: float) -> Mail:
    """The same one for all that ask in this process, which belongs to one run with so many masters at most;
    `lease_patience_s` is how late a lease may be."""
    return Mail(master, min(LEASES_WAIT_MAX_S, LEASES_WAIT_SHARE * lease_patience_s))
