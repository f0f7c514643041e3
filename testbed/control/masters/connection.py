"""Which master a place is connected to, and since when it waits for an answer: of nodes and of clients of zones.

A place talks to one master at a time, whichever it reaches, the nearest first. The connection is a session with a
number that no other one of the place has. What carries another number is of a connection that is no more, and is not
heard.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from testbed.objects.places import Topology
from testbed.objects.timings import Timings

PATIENCE_MAX = 8
"""How many times as long as at first an answer is waited for at most."""
CALM = 10
"""Who has moved on for want of an answer, and not again for so many times its patience, is as impatient as at first: a
little longer than the longest wait, so that who was cut off once does not meet the next cut with less time than a lease
has."""


class Connection:
    """Nobody moves on from the only master there is: it connects anew as soon as that one leads.

    Who has found no master of all of them quick enough waits twice as long in the next round, as clients of gRPC back
    off: to be connected to anew costs a busy master more than the answer that it owes.
    """

    def __init__(self, masters: Sequence[str], patience_s: float) -> None:
        """`masters` in the order in which they are tried, `patience_s` is how long one may owe an answer."""
        self._masters = tuple(masters)
        self._patience_s = patience_s
        self._at = 0
        self.session = 0
        """0 before the first."""
        self._answered = False
        """Whether anything was heard in this session."""
        self._due_s: float | None = None
        """Until when an answer is waited for."""
        self._moves = 0
        """How often it has moved on for want of an answer, since it was calm last."""
        self._moved_s = 0.0

    @property
    def master(self) -> str:
        return self._masters[self._at]

    def begin(self, now_s: float) -> int:
        """A session with the nearest."""
        self._at = 0
        return self.open(now_s)

    def open(self, now_s: float) -> int:
        """A new session with the same master."""
        self.session += 1
        self._answered = False
        self._due_s = None
        self.ask(now_s)
        return self.session

    def ask(self, now_s: float) -> None:
        """Something leaves for the master that it answers while it can."""
        if len(self._masters) > 1 and self._due_s is None:
            if now_s > self._moved_s + CALM * self._patience_s:
                self._moves = 0
            rounds = self._moves // len(self._masters)
            self._due_s = now_s + self._patience_s * min(2**rounds, PATIENCE_MAX)

    def hear(self, session: int) -> bool:
        """Whether what carries that session is for this place. Whatever it says, its master is there: the answer that
        it owes may be behind all that it has to tell."""
        if session != self.session:
            return False
        self._answered = True
        self._due_s = None
        return True

    def take_lead(self, master: str, session: int | None, now_s: float) -> Literal["connect", "list"] | None:
        """A master says that from now on it serves, with who is connected to it by that session: whether to connect
        (the session is open then), only to list again what there is, as there is another leader, or neither."""
        if master == self.master and session == self.session:
            self.hear(self.session)
            return "list"
        if master != self.master and self._answered:
            return None
        self._at = self._masters.index(master)
        self.open(now_s)
        return "connect"

    def close(self, master: str, session: int | None, now_s: float) -> bool:
        """That session is no more, or any with that master. True where there is a new one now, with the next master."""
        if master != self.master or session not in (None, self.session):
            return False
        self._move_on(now_s)
        return True

    def give_up(self, now_s: float) -> bool:
        """True where the master owes an answer for too long, and there is a new session now, with the next one."""
        if self._due_s is None or now_s < self._due_s:
            return False
        self._moves, self._moved_s = self._moves + 1, now_s
        self._move_on(now_s)
        return True

    def next_deadline(self) -> float | None:
        return self._due_s

    def _move_on(self, now_s: float) -> None:
        self._at = (self._at + 1) % len(self._masters)
        self.open(now_s)


def patience_s(timings: Timings) -> float:
    """How long an answer is waited for: so that the next master has heard of a node before its lease is over."""
    return timings.lease_grace_s / 2


def nearest_first(place: str, masters: Sequence[str], topology: Topology) -> tuple[str, ...]:
    """By the declared delay; of those that are as far, in an order that differs from zone to zone, so that not all
    places come to one."""
    here = topology.place(place).locality.zone
    zones = list(dict.fromkeys(each.locality.zone for each in topology.places))
    turn = zones.index(here) % max(1, len(masters))
    turned = [*masters[turn:], *masters[:turn]]
    return tuple(
        sorted(turned, key=lambda m: (topology.place(m).locality.zone != here, topology.quality(place, m).delay_s))
    )
