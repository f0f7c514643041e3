"""What nodes say to a master that does not lead, on its way to the one that does: all of it, in order, or it is missed.

Between masters, messages are lost, doubled and late. So a follower numbers what it passes on, in a stream of its own
that its leader has to have accepted, and a leader takes from each stream only what comes next. Who hears that
something was missed joins with a new stream, and nodes list again what they have.
"""

from __future__ import annotations

import math

from testbed.control.masters.messages import Join, Joined, Missed, PassOn
from testbed.control.messages import NodeEvent


class Upstream:
    """Of one that follows, to the leader that it has found."""

    def __init__(self, sender: str, number: int, again_after_s: float) -> None:
        """`number` is that of no other stream. Who is not answered asks `again_after_s`."""
        self._sender = sender
        self.number = number
        self._again_after_s = again_after_s
        self._passed_on = 0
        self._known_from: int | None = None
        """Until which index the log has to be applied; None until the leader has said it."""
        self._again_s = -math.inf

    def join(self, identity: str, now_s: float) -> Join | None:
        """To ask with, if it is time to."""
        if self._known_from is not None or now_s < self._again_s:
            return None
        self._again_s = now_s + self._again_after_s
        return Join(self._sender, self.number, identity)

    def next_deadline(self) -> float:
        """When to ask again."""
        return math.inf if self._known_from is not None else self._again_s

    def accept(self, answer: Joined) -> None:
        if answer.stream == self.number:
            self._known_from = answer.index

    def knows_all(self, applied_index: int) -> bool:
        """Whether who has applied that much of the log knows all that was acknowledged before."""
        return self._known_from is not None and applied_index >= self._known_from

    def pass_on(self, place: str, session: int, event: NodeEvent) -> PassOn | None:
        """None while the leader has not accepted the stream: nodes will be asked to list what they have."""
        if self._known_from is None:
            return None
        self._passed_on += 1
        return PassOn(self._sender, self.number, self._passed_on, place, session, event)


class Downstreams:
    """Of one that leads, from those that follow."""

    def __init__(self) -> None:
        self._taken: dict[str, tuple[int, int]] = {}
        """By follower: the number of its stream, and how much of that was taken."""

    def accept(self, join: Join) -> None:
        number, _ = self._taken.get(join.sender, (None, 0))
        if number != join.stream:
            self._taken[join.sender] = join.stream, 0

    def take(self, passed: PassOn) -> PassOn | Missed | None:
        """What comes next; or that something before it has not come; or nothing, as it was taken already."""
        number, taken = self._taken.get(passed.sender, (None, 0))
        if number != passed.stream or passed.number > taken + 1:
            return Missed(passed.stream)
        if passed.number <= taken:
            return None
        self._taken[passed.sender] = passed.stream, passed.number
        return passed
