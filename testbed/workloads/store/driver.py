"""Drives the groups of one process: they share its connections to peers, its one timer and its folder."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence

from testbed.journal.journal import Journal
from testbed.network.wire.peers import Peers
from testbed.workloads.store.commands import Answer, Get, Put
from testbed.workloads.store.encoding import PeerMessage, decode, encode
from testbed.workloads.store.group import Group
from testbed.workloads.store.heard import Heard
from testbed.workloads.store.leaders import LeadersLog, Leading
from testbed.workloads.store.settings import StoreSettings

_TIMER_S = 0.001
"""The loop counts in whole milliseconds, and would wake up before the deadline."""


class Driver:
    """All of it in the thread of its loop, but for writing to the disk, which has threads of its own."""

    def __init__(self, settings: StoreSettings, journals: Sequence[Journal]) -> None:
        """`journals` are those of the groups, in their order."""
        workload = settings.workload
        self._settings = settings
        self._heard = Heard(workload.election_timeout_s)
        patience_s, secret = 2 * workload.election_timeout_s, settings.secret.encode()
        self._peers = Peers(workload.replica, settings.peers, patience_s, self._hear, secret)
        self._leaders = LeadersLog(settings.leaders_log)
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = math.inf
        self._groups = [Group(number, settings, journal, self) for number, journal in enumerate(journals)]
        self._of_partition = [
            group
            for group, declared in zip(self._groups, workload.groups, strict=True)
            for _ in range(declared.start, declared.end)
        ]

    @property
    def ready(self) -> bool:
        """Whether clients of every group are served."""
        return all(group.ready for group in self._groups)

    async def run(self) -> None:
        """Until it is cancelled. Raises OSError when an address is taken; ends the process when the disk fails."""
        await self._peers.open(self._settings.listen)
        try:
            async with asyncio.TaskGroup() as writing:
                for group in self._groups:
                    writing.create_task(group.keep_writing())
                    self.wake(group.next_deadline())
        finally:
            self._peers.close()

    async def do(self, partition: int, what: Put | Get) -> Answer:
        """By this replica if it leads the partition's group, else by the one that does."""
        return await self._of_partition[partition].do(what)

    async def prefer(self, group: int, primaries: tuple[str, ...]) -> bool:
        """As the group's own; raises IndexError, and ValueError for a replica that is not there."""
        known = {each.name for each in self._settings.workload.replicas}
        if not primaries or not known.issuperset(primaries):
            raise ValueError(primaries)
        return await self._groups[group].prefer(primaries)

    # --- what groups need -----------------------------------------------------------------------------------------

    def send(self, group: int, to: str, message: PeerMessage) -> bool:
        """False if it is lost already."""
        return self._peers.send(to, encode(group, message))

    def is_there(self, name: str, now_s: float) -> bool:
        """Whether that peer is heard, of any group, and has been for a while."""
        return self._heard.is_there(name, now_s)

    def note(self, what: Leading, group: int, term: int) -> None:
        """What this replica is to the group from now on."""
        self._leaders.note(what, group, term, self._settings.partitions_of(group))

    def wake(self, deadline_s: float) -> None:
        """A group has this deadline now. It may have had a sooner one: then it is woken for nothing."""
        if deadline_s >= self._timer_s or deadline_s == math.inf:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_s = deadline_s
        wait_s = max(0.0, deadline_s - time.monotonic()) + _TIMER_S
        self._timer = asyncio.get_running_loop().call_later(wait_s, self._tick)

    def _tick(self) -> None:
        self._timer, self._timer_s = None, math.inf
        now_s = time.monotonic()
        for group in self._groups:
            if group.next_deadline() <= now_s:
                group.tick(now_s)
            self.wake(group.next_deadline())

    def _hear(self, sender: str, data: bytes) -> None:
        self._heard.hear(sender, time.monotonic())
        group, message = decode(data)
        self._groups[group].hear(sender, message)
