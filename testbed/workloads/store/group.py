"""One group of partitions at one replica: carries out what its consensus wants, on a disk, with peers, for clients."""

from __future__ import annotations

import asyncio
import time
from random import Random
from typing import Protocol

import orjson

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
from testbed.isr.messages import AlterPartition, BrokerHeartbeat, Fetch, FetchReply
from testbed.journal.appender import Appender
from testbed.journal.journal import Journal
from testbed.workloads.store.commands import DONE, REFUSED, UNKNOWN, Answer, Ask, Get, Put, Told, Values
from testbed.workloads.store.encoding import PeerMessage
from testbed.workloads.store.leaders import Leading
from testbed.workloads.store.questions import Questions, Waiting, settle, to_be_told
from testbed.workloads.store.readiness import Readiness
from testbed.workloads.store.settings import StoreSettings

_POLL_S = 0.002


class Shell(Protocol):
    """What all groups of a process share."""

    def send(self, group: int, to: str, message: PeerMessage) -> bool: ...

    def is_there(self, name: str, now_s: float) -> bool: ...

    def note(self, what: Leading, group: int, term: int) -> None: ...

    def wake(self, deadline_s: float) -> None: ...


class Group:
    """All of it in the thread of its loop, but for writing to the disk."""

    def __init__(self, number: int, settings: StoreSettings, journal: Journal, shell: Shell) -> None:
        workload = settings.workload
        self.name = workload.replica
        self.number = number
        self._workload = workload
        self._primaries = workload.groups[number].primaries
        self._preferred = journal.path.with_name("primaries")
        if self._preferred.exists():
            self._primaries = tuple(orjson.loads(self._preferred.read_bytes()))
        self._disk = Appender(journal, self._say)
        self._shell = shell
        self._timeout_s = workload.election_timeout_s
        stored = journal.stored
        is_new = stored.term == 0
        self._readiness = Readiness(self._primaries[0] if is_new and self._primaries else None, 3 * self._timeout_s)
        self._values = Values()
        self._values.restore(stored.snapshot.state if isinstance(stored.snapshot.state, dict) else None)
        # Only who leads answers, and whoever begins to learns first what is committed.
        timing = Settings(workload.election_timeout_s, workload.heartbeat_s, commits_at_once=False)
        random = Random(f"{settings.seed}/{self.name}/{number}")
        self._replica = Replica(self.name, stored, timing, random, time.monotonic())
        self._proposed: dict[int, list[tuple[int, Waiting]]] = {}
        """By index, with the term of the entry that each waits for."""
        # A new leader takes over within three time-outs, or clients are told to come again.
        self._questions = Questions(self.name, 3 * self._timeout_s, "no answer of a majority in time")
        self._reads: list[tuple[Get, Waiting]] = []
        """Those of the round of heartbeats that is under way, and those that wait for the next."""
        self._next_reads: list[tuple[Get, Waiting]] = []
        self._primary_at_s = 0.0
        self._led_term: int | None = None
        """In which it leads, if it does."""

    @property
    def ready(self) -> bool:
        """Whether clients are served."""
        return self._readiness.at(time.monotonic())

    async def do(self, what: Put | Get) -> Answer:
        """By this replica if it leads, else by the one that does."""
        return await self._questions.answer(
            self._replica.leader,
            what,
            lambda waiting: self._begin(what, waiting),
            lambda leader, question: self._shell.send(self.number, leader, question),
        )

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

    def hear(self, sender: str, message: PeerMessage) -> None:
        match message:
            case Ask(number, what):
                self._answer(sender, number, what)
            case Told():
                self._questions.told(message)
            case Fetch() | FetchReply() | BrokerHeartbeat() | AlterPartition():
                raise AssertionError(f"{message} is of mode isr")
            case _:
                self._carry_out(self._replica.receive(message, time.monotonic()))

    def _answer(self, asker: str, number: int, what: Put | Get) -> None:
        waiting = to_be_told(number, lambda told: self._shell.send(self.number, asker, told))
        if self._replica.role is Role.LEADER:
            self._begin(what, waiting)
        else:
            waiting.set_result(Answer(REFUSED, f"{self.name} does not lead any more"))

    # --- what the replica wants done ------------------------------------------------------------------------------

    def _carry_out(self, outputs: Outputs) -> None:
        for output in outputs:
            match output:
                case Write():
                    self._disk.add(output)
                case Send(to, message):
                    self._shell.send(self.number, to, message)
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
                        settle(waiting, self._values.get(what.key))
                    asyncio.get_running_loop().call_soon(self._begin_reads)
                case Refused(request, reason):
                    self._refuse(request, reason)
                case RoleChanged(role, term, leader):
                    self._readiness.leads(leader, time.monotonic())
                    self._note(role is Role.LEADER, term)
                    self._say(f"{role.value} in term {term}, the leader is {leader or 'not known'}")
        self._shell.wake(self.next_deadline())

    def _note(self, leads: bool, term: int) -> None:
        if leads != (self._led_term is not None):
            self._shell.note("leads" if leads else "leads no more", self.number, term if leads else self._led_term or 0)
            self._led_term = term if leads else None

    def _apply(self, entry: Entry) -> None:
        if isinstance(entry.command, Put):
            self._values.apply(entry.command)
        self._settle_proposed(entry)

    def _settle_proposed(self, entry: Entry) -> None:
        for term, waiting in self._proposed.pop(entry.index, ()):
            if term == entry.term:
                settle(waiting, self._done(term))
            else:
                settle(waiting, Answer(REFUSED, "another leader had another write in its place"))

    def _done(self, term: int) -> Answer:
        return Answer(DONE, owner=f"{self.name}@{term}")

    def _settle_until(self, index: int) -> None:
        """A snapshot does not say which entries it stands for."""
        for each in [each for each in self._proposed if each <= index]:
            for _, waiting in self._proposed.pop(each):
                settle(waiting, Answer(UNKNOWN, "another leader has taken over"))

    def _refuse(self, request: object, reason: str) -> None:
        if isinstance(request, asyncio.Future):
            settle(request, Answer(REFUSED, reason))
        elif request == "reads":
            reads, self._reads = [*self._reads, *self._next_reads], []
            self._next_reads = []
            for _, waiting in reads:
                settle(waiting, Answer(REFUSED, reason))

    def _take_snapshot_if_due(self) -> None:
        replica = self._replica
        if replica.applied_index - replica.log.snapshot.index >= self._workload.snapshot_entries:
            self._carry_out(replica.compact(replica.applied_index, self._values.state(), time.monotonic()))

    # --- the disk --------------------------------------------------------------------------------------------------

    async def keep_writing(self) -> None:
        """Until it is cancelled."""
        async for writes in self._disk.durable():
            if self._workload.acks == "leader":
                self._acknowledge_early(writes)
            self._carry_out(self._replica.persisted(writes[-1].number, time.monotonic()))

    def _acknowledge_early(self, writes: list[Write]) -> None:
        for entry in (entry for write in writes for entry in write.entries):
            for term, waiting in self._proposed.get(entry.index, ()):
                if term == entry.term:
                    settle(waiting, self._done(term))

    # --- time ------------------------------------------------------------------------------------------------------

    def next_deadline(self) -> float:
        """When it wants to be told the time, monotonic seconds; infinite if never."""
        return self._replica.next_deadline()

    def tick(self, now_s: float) -> None:
        self._carry_out(self._replica.tick(now_s))
        self._hand_over_to_primary(now_s)

    def _hand_over_to_primary(self, now_s: float) -> None:
        """At most once a time-out, and only to one that is there, as far as messages tell."""
        if self._replica.role is not Role.LEADER or now_s < self._primary_at_s:
            return
        self._primary_at_s = now_s + self._timeout_s
        first = next(
            (name for name in self._primaries if name == self.name or self._shell.is_there(name, now_s)), self.name
        )
        if first != self.name:
            self._shell.note("yields", self.number, self._led_term or 0)
            self._carry_out(self._replica.transfer_leadership("primary", first, now_s))

    async def prefer(self, primaries: tuple[str, ...]) -> bool:
        """From now on these are to lead while they can, the first of them first, also after a restart. Whether that one
        does within three time-outs, as far as is known here."""
        self._primaries, self._primary_at_s = primaries, 0.0
        self._preferred.write_bytes(orjson.dumps(primaries))
        now_s = time.monotonic()
        deadline_s = now_s + 3 * self._timeout_s
        self._hand_over_to_primary(now_s)
        while self._replica.leader != primaries[0] and time.monotonic() < deadline_s:
            await asyncio.sleep(_POLL_S)
        return self._replica.leader == primaries[0]

    def _say(self, text: str) -> None:
        print(time.strftime("%H:%M:%S"), f"group {self.number}: {text}", flush=True)
