"""When a replica takes requests of clients."""

from __future__ import annotations

import math


class Readiness:
    """Of one group at one replica: once it has known a leader since it started.

    Where the store is new and one replica is to lead, not before that one does: leadership that changes hands refuses
    requests, and a cluster that has come up is one in which nothing moves any more. Who is not there after `patience_s`
    is not waited for.
    """

    def __init__(self, awaited: str | None, patience_s: float) -> None:
        """`awaited` is who is to lead; None where anybody will do."""
        self._awaited = awaited
        self._patience_s = patience_s
        self._ready_from_s = math.inf

    def leads(self, leader: str | None, now_s: float) -> None:
        """Who leads, as far as is known here, has changed."""
        if leader is not None:
            wait_s = 0.0 if self._awaited in (None, leader) else self._patience_s
            self._ready_from_s = min(self._ready_from_s, now_s + wait_s)

    def at(self, now_s: float) -> bool:
        return now_s >= self._ready_from_s
