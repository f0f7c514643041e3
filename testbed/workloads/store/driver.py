"""Drives one replica: carries out what it returns on a disk, with peers and for clients, and tells it the time."""

from __future__ import annotations

import asyncio
import os
import time
from itertools import count
from random import Random

from testbed.consensus.log import Entry
from testbed.consensus.outputs import (
    Accepted,
    Apply,
    ReadReady,
    Refused,
    Restore,
    Role,
    RoleChanged,
    Send,
    Write,
)
from testbed.consensus.replica import Outputs, Replica
from testbed.consensus.settings import Settings
from testbed.workloads.store.commands import DONE, REFUSED, UNKNOWN, Answer, Ask, Get, Put, Told, Values
from testbed.workloads.store.encoding import decode, encode
from testbed.workloads.store.journal import Journal
from testbed.workloads.store.peers import Peers
from testbed.workloads.store.settings import StoreSettings

DISK_FAILED = 74
"""The exit code of a replica whose disk took no more: sysexits.h, EX_IOERR."""
_TIMER_S = 0.001
"""The loop counts in whole milliseconds, and would wake up before the deadline."""

Waiting = asyncio.Future[Answer]


class Driver:
    """All of it in the thread of its loop, but for writing to the disk, which has one of its own. Writes that come
    while the disk is busy are made durable together."""

    def __init__(self, settings: StoreSettings, journal: Journal) -> None:
        workload = settings.workload
        self.name = workload.replica
        self.ready = False
        """Whether it has known a leader since it started."""
        self._workload = workload
        self._settings = settings
        self._journal = journal
        self._timeout_s = workload.election_timeout_s
        stored = journal.stored
        self._values = Values()
        self._values.restore(stored.snapshot.state if isinstance(stored.snapshot.state, dict) else None)
        timing = Settings(workload.election_timeout_s, workload.heartbeat_s)
        self._replica = Replica(self.name, stored, timing, Random(f"{settings.seed}/{self.name}"), time.monotonic())
        self._peers = Peers(self.name, settings.peers, 2 * self._timeout_s, self._hear)
        self._writes: list[Write] = []
        self._to_write = asyncio.Event()
        self._proposed: dict[int, list[tuple[int, Waiting]]] = {}
        """By index, with the term of the entry that each waits for."""
        self._asked: dict[int, Waiting] = {}
        self._numbers = count()
        self._reads: list[tuple[Get, Waiting]] = []
        """Those of the round of heartbeats that is under way, and those that wait for the next."""
        self._next_reads: list[tuple[Get, Waiting]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._heard_s: dict[str, float] = {}
        self._primary_at_s = 0.0

    async def run(self) -> None:
        """Until it is cancelled. Raises OSError when an address is taken; ends the process when the disk fails."""
        await self._peers.open(self._settings.listen)
        self._look_ahead()
        try:
            await self._keep_writing()
        finally:
            self._peers.close()

    async def do(self, what: Put | Get) -> Answer:
        """By this replica if it leads, else by the one that does."""
        waiting: Waiting = asyncio.get_running_loop().create_future()
        number = next(self._numbers)
        leader = self._replica.leader
        if self._replica.role is Role.LEADER:
            self._begin(what, waiting)
        elif leader is None:
            return Answer(REFUSED, "no leader is known")
        elif self._peers.send(leader, encode(Ask(number, what))):
            self._asked[number] = waiting
        else:
            return Answer(REFUSED, f"the leader {leader} is out of reach")
        try:
            # A new leader takes over within three time-outs, or clients are told to come again.
            async with asyncio.timeout(3 * self._timeout_s):
                return await waiting
        except TimeoutError:
            return Answer(UNKNOWN, "no answer of a majority in time")
        finally:
            self._asked.pop(number, None)

    # --- requests ----------------------------------------------------------------------------------------------

    def _begin(self, what: Put | Get, waiting: Waiting) -> None:
        if isinstance(what, Put):
            self._carry_out(self._replica.propose(waiting, what, time.monotonic()))
        else:
            self._next_reads.append((what, waiting))
            self._begin_reads()

    def _begin_reads(self) -> None:
        if self._next_reads and not self._reads:
            self._reads, self._next_reads = self._next_reads, []
            self._carry_out(self._replica.read("reads", time.monotonic()))

    def _hear(self, sender: str, data: bytes) -> None:
        self._heard_s[sender] = time.monotonic()
        match decode(data):
            case Ask(number, what):
                self._answer(sender, number, what)
            case Told(number, answer):
                if number in self._asked:
                    _settle(self._asked[number], answer)
            case message:
                self._carry_out(self._replica.receive(message, time.monotonic()))

    def _answer(self, asker: str, number: int, what: Put | Get) -> None:
        waiting: Waiting = asyncio.get_running_loop().create_future()
        waiting.add_done_callback(lambda done: self._peers.send(asker, encode(Told(number, done.result()))))
        if self._replica.role is Role.LEADER:
            self._begin(what, waiting)
        else:
            waiting.set_result(Answer(REFUSED, f"{self.name} does not lead any more"))

    # --- what the replica wants done ------------------------------------------------------------------------------

    def _carry_out(self, outputs: Outputs) -> None:
        for output in outputs:
            match output:
                case Write():
                    self._writes.append(output)
                    self._to_write.set()
                case Send(to, message):
                    self._peers.send(to, encode(message))
                case Apply(entries):
                    for entry in entries:
                        self._apply(entry)
                    self._take_snapshot_if_due()
                case Restore(snapshot):
                    self._values.restore(snapshot.state if isinstance(snapshot.state, dict) else None)
                    self._settle_until(snapshot.index)
                case Accepted(waiting, index, term):
                    assert isinstance(waiting, asyncio.Future)
                    self._proposed.setdefault(index, []).append((term, waiting))
                case ReadReady():
                    reads, self._reads = self._reads, []
                    for what, waiting in reads:
                        _settle(waiting, self._values.get(what.key))
                    asyncio.get_running_loop().call_soon(self._begin_reads)
                case Refused(request, reason):
                    self._refuse(request, reason)
                case RoleChanged(role, term, leader):
                    self.ready |= leader is not None
                    _say(f"{role.value} in term {term}, the leader is {leader or 'not known'}")
        self._look_ahead()

    def _apply(self, entry: Entry) -> None:
        if isinstance(entry.command, Put):
            self._values.apply(entry.command)
        self._settle_proposed(entry)

    def _settle_proposed(self, entry: Entry) -> None:
        for term, waiting in self._proposed.pop(entry.index, ()):
            if term == entry.term:
                _settle(waiting, self._done(term))
            else:
                _settle(waiting, Answer(REFUSED, "another leader had another write in its place"))

    def _done(self, term: int) -> Answer:
        return Answer(DONE, owner=f"{self.name}@{term}")

    def _settle_until(self, index: int) -> None:
        """A snapshot does not say which entries it stands for."""
        for each in [each for each in self._proposed if each <= index]:
            for _, waiting in self._proposed.pop(each):
                _settle(waiting, Answer(UNKNOWN, "another leader has taken over"))

    def _refuse(self, request: object, reason: str) -> None:
        if isinstance(request, asyncio.Future):
            _settle(request, Answer(REFUSED, reason))
        elif request == "reads":
            reads, self._reads = [*self._reads, *self._next_reads], []
            self._next_reads = []
            for _, waiting in reads:
                _settle(waiting, Answer(REFUSED, reason))

    def _take_snapshot_if_due(self) -> None:
        replica = self._replica
        if replica.applied_index - replica.log.snapshot.index >= self._workload.snapshot_entries:
            self._carry_out(replica.compact(replica.applied_index, self._values.state(), time.monotonic()))

    # --- the disk --------------------------------------------------------------------------------------------------

    async def _keep_writing(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._to_write.wait()
            self._to_write.clear()
            writes, self._writes = self._writes, []
            try:
                await loop.run_in_executor(None, self._journal.append, writes)
            except OSError as error:
                # Without a disk it can neither lead nor vote; what is on it is whole. Who restarts it tries again.
                _say(f"cannot write to {self._journal.path}: {error.strerror}; the replica ends")
                os._exit(DISK_FAILED)
            if self._workload.acks == "leader":
                self._acknowledge_early(writes)
            self._carry_out(self._replica.persisted(writes[-1].number, time.monotonic()))

    def _acknowledge_early(self, writes: list[Write]) -> None:
        for entry in (entry for write in writes for entry in write.entries):
            for term, waiting in self._proposed.get(entry.index, ()):
                if term == entry.term:
                    _settle(waiting, self._done(term))

    # --- time ------------------------------------------------------------------------------------------------------

    def _look_ahead(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        wait_s = max(0.0, self._replica.next_deadline() - time.monotonic()) + _TIMER_S
        if wait_s < 3600:  # a single replica that may not stand has no deadline
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._tick)

    def _tick(self) -> None:
        now_s = time.monotonic()
        self._carry_out(self._replica.tick(now_s))
        self._hand_over_to_primary(now_s)

    def _hand_over_to_primary(self, now_s: float) -> None:
        """At most once a time-out, and only to one that has been heard of since."""
        primaries = self._workload.primaries
        if self._replica.role is not Role.LEADER or not primaries or self.name in primaries:
            return
        if now_s < self._primary_at_s:
            return
        self._primary_at_s = now_s + self._timeout_s
        alive = [name for name in primaries if now_s < self._heard_s.get(name, 0.0) + self._timeout_s]
        if alive:
            self._carry_out(self._replica.transfer_leadership("primary", alive[0], now_s))


def _settle(waiting: Waiting, answer: Answer) -> None:
    """Whoever waited may have gone."""
    if not waiting.done():
        waiting.set_result(answer)


def _say(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, flush=True)
