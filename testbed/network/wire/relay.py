"""The link relay: every connection from one place of this machine to another place passes through here.

Owns what all of these places share: the loop and its timer, so that they share wake-ups, the table of links with the
faults upon it, and the samples. What one place has is an `Attachment`. The process that it runs in is `relay_process`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import monotonic

from testbed.faults.effects import LinkEffect
from testbed.network.links import LinkSample, LinkTable, Pairs
from testbed.network.wire.attachment import Attachment
from testbed.network.wire.loop_thread import Tasks
from testbed.network.wire.peer import PeerOwners
from testbed.network.wire.timer import PreciseTimer


class LinkRelay:
    """For the thread of its loop only. The table is the relay's alone: change it by `impose` and `lift` only."""

    def __init__(self, table: LinkTable, tasks: Tasks) -> None:
        self.timer = PreciseTimer(tasks.loop)
        self._tasks = tasks
        self._table = table
        self._owners = PeerOwners()
        self._attachments: list[Attachment] = []
        self._samples: deque[LinkSample] = deque()
        self._sample_every_second()

    def attach(self, place: str, *, seed: int, head_timeout_s: float = 5.0) -> Attachment:
        """`seed` fixes the choices of jitter and loss on the place's links."""
        attachment = Attachment(
            place,
            self._tasks,
            self.timer,
            self._owners,
            self._table,
            self._samples.append,
            seed=seed,
            head_timeout_s=head_timeout_s,
        )
        self._attachments.append(attachment)
        return attachment

    def detach(self, attachment: Attachment) -> None:
        """Close all that the place has here: callers are reset, as by the kernel of a process that has ended."""
        self._attachments.remove(attachment)
        attachment.close()

    def impose(self, fault: str, pairs: Pairs, effect: LinkEffect) -> float:
        """As `LinkTable.impose`; returns the time of `time.monotonic` at which it was in effect."""
        return self._change(lambda: self._table.impose(fault, pairs, effect))

    def lift(self, fault: str) -> float:
        """As `LinkTable.lift`; returns the time of `time.monotonic` at which it was in effect."""
        return self._change(lambda: self._table.lift(fault))

    def drain_samples(self) -> list[LinkSample]:
        """Samples of the whole seconds since the last call; of a place that was detached, of its last second too."""
        drained = []
        while self._samples:
            # One by one: tests ask from another thread, and one that comes meanwhile is not to be lost.
            drained.append(self._samples.popleft())
        return drained

    def close(self) -> None:
        """Close every listener and connection. Samples can still be drained."""
        for attachment in tuple(self._attachments):
            self.detach(attachment)
        self.timer.close()
        self._owners.close()

    def _change(self, change: Callable[[], None]) -> float:
        change()
        for attachment in self._attachments:
            attachment.table_changed()
        return monotonic()

    def _sample_every_second(self) -> None:
        ending = int(monotonic())

        def tick() -> None:
            for attachment in self._attachments:
                attachment.take_samples(ending)
            self._sample_every_second()

        self.timer.call_at(ending + 1.0, tick)
