"""One replica of a partition: it leads or follows as the controller says, and never decides that by itself."""

from __future__ import annotations

import math

from testbed.consensus.log import Entry, Log
from testbed.consensus.outbox import Outbox
from testbed.consensus.outputs import Apply, ReadReady, Restore, Send
from testbed.consensus.storage import Stored
from testbed.isr.leadership import Leadership, Produce
from testbed.isr.messages import Fetch, FetchReply
from testbed.isr.metadata import Partition
from testbed.isr.outputs import (
    Acknowledged,
    Acks,
    NotAcknowledged,
    Output,
    PartitionChanged,
    Problem,
    ToController,
)
from testbed.isr.settings import Settings

Outputs = tuple[Output, ...]


class Replica:
    """Driven as `consensus.replica.Replica` is. The term of an entry is its leader's epoch.

    Whatever is acknowledged, by a follower to its leader or by the leader to a client, is durable before, which in
    Kafka takes `flush.messages=1`. What a follower cuts off is gone from its disk with the first entry in its place; a
    crash before that brings it back, and the next fetch finds it again.
    """

    def __init__(self, name: str, number: int, stored: Stored, partition: Partition, settings: Settings) -> None:
        self.name = name
        self.log = Log(stored.snapshot, stored.entries)
        self.partition = partition
        self.high_watermark = 0
        self.applied_index = 0
        self._number = number
        self._settings = settings
        self._now_s = 0.0
        self._alive: list[str] = []
        self._outbox: Outbox[Fetch | FetchReply, Output] = Outbox(0, None, self.log.last_index)
        self._leadership: Leadership | None = None
        self._fetches = 0
        self._fetch_at_s = math.inf

    @property
    def leads(self) -> bool:
        return self._leadership is not None

    @property
    def lags(self) -> dict[str, int] | None:
        """Of each follower, in entries; None if another one leads, who knows."""
        return self._leadership.lags() if self._leadership else None

    # --- inputs -----------------------------------------------------------------------------------------------

    def take(self, partition: Partition, alive: list[str], may_lead: bool, now_s: float) -> Outputs:
        """What the controller has decided. `may_lead`: if it says that this broker leads, this is the incarnation that
        it means: an earlier one may have had entries in that epoch which are lost."""
        self._now_s, self._alive = now_s, alive
        old, self.partition = self.partition, partition
        leads = may_lead and partition.leader == self.name
        if self._leadership and (not leads or partition.epoch != old.epoch):
            self._step_down(self._leadership)
        if self._leadership:
            self._leadership.take(partition)
        elif leads:
            self._fetch_at_s = math.inf
            self._leadership = Leadership(self.name, self._number, partition, self.log, self._settings, now_s)
        elif partition.epoch != old.epoch or self._fetch_at_s == math.inf:
            self._fetch_from_leader()
        if partition != old:
            self._outbox.add(PartitionChanged(partition))
        return self._finish()

    def receive(self, message: Fetch | FetchReply, now_s: float) -> Outputs:
        self._now_s = now_s
        if isinstance(message, Fetch):
            self._take_fetch(message)
        elif (message.epoch, message.number) == (self.partition.epoch, self._fetches) and not self._leadership:
            self._take_reply(message)
        return self._finish()

    def tick(self, now_s: float) -> Outputs:
        self._now_s = now_s
        if self._leadership and now_s >= self._leadership.check_at_s:
            self._leadership.check_at_s = now_s + self._settings.replica_lag_time_max_s / 2
        elif now_s >= self._fetch_at_s:
            self._fetch_from_leader()
        return self._finish()

    def next_deadline(self) -> float:
        return self._leadership.next_deadline() if self._leadership else self._fetch_at_s

    def persisted(self, number: int, now_s: float) -> Outputs:
        self._now_s = now_s
        self._outbox.persisted(number)
        return self._finish()

    def produce(self, request: object, command: object, acks: Acks, now_s: float) -> Outputs:
        """Acknowledged or NotAcknowledged, at once or later (Kafka's Partition.appendRecordsToLeader and
        checkEnoughReplicasReachOffset)."""
        self._now_s = now_s
        leadership = self._leadership
        if not leadership:
            self._outbox.add(NotAcknowledged(request, Problem.NOT_LEADER))
        elif acks is Acks.ALL and len(self.partition.isr) < self._settings.min_insync_replicas:
            self._outbox.add(NotAcknowledged(request, Problem.NOT_ENOUGH_REPLICAS))
        else:
            entry = Entry(self.log.last_index + 1, self.partition.epoch, command)
            self.log.put((entry,))
            self._outbox.put_entries((entry,))
            leadership.produced[acks].append(Produce(request, entry.index))
        return self._finish()

    def read(self, request: object, now_s: float) -> Outputs:
        """ReadReady, at once or later, or NotAcknowledged. What is read is what all in sync have; at a follower, which
        answers if that is set and it is in sync, what it knows of that (KIP-392). A leader that has been replaced and
        does not know yet answers, too, and so does a follower that is cut off: Kafka has no lease."""
        self._now_s = now_s
        if self._leadership:
            self._leadership.reads.append(request)
        elif self._settings.follower_reads and self._follows_in_sync():
            self._outbox.add(ReadReady(request))
        else:
            self._outbox.add(NotAcknowledged(request, Problem.NOT_LEADER))
        return self._finish()

    def _follows_in_sync(self) -> bool:
        """Before it has been told anything it takes no part, whatever its disk holds."""
        return self.partition.leader not in (None, self.name) and self.name in self.partition.isr

    # --- following --------------------------------------------------------------------------------------------

    def _fetch_from_leader(self) -> None:
        leader = self.partition.leader
        if leader is None or leader == self.name:
            self._fetch_at_s = math.inf
            return
        self._fetches += 1
        self._fetch_at_s = self._now_s + 2 * self._settings.fetch_wait_max_s
        last, epoch = self.log.last_index, self.log.last_term
        number, known = self._fetches, self.high_watermark
        fetch = Fetch(self.name, self._number, self.partition.epoch, number, last, epoch, known)
        self._outbox.send(leader, fetch)

    def _take_reply(self, reply: FetchReply) -> None:
        if not reply.leads:
            self._fetches += 1  # an answer that comes twice counts once
            self._fetch_at_s = self._now_s + self._settings.fetch_backoff_s
            return
        if reply.diverging:
            self._truncate(*reply.diverging)  # what is left need not be the leader's either
        else:
            if reply.entries:
                self.log.put(reply.entries)
                self._outbox.put_entries(reply.entries)
            self.high_watermark = max(self.high_watermark, min(reply.high_watermark, self.log.last_index))
        self._fetch_from_leader()

    def _truncate(self, index: int, epoch: int) -> None:
        """To where both logs may agree: the leader has nothing of this one's later epochs (KIP-279). Only after an
        unclean election can that be below the high watermark."""
        self.log.truncate(self.log.last_index_until(index, epoch))
        self.high_watermark = min(self.high_watermark, self.log.last_index)
        if self.applied_index > self.log.last_index:
            self.applied_index = 0
            self._outbox.add(Restore(self.log.snapshot))

    # --- leading ----------------------------------------------------------------------------------------------

    def _take_fetch(self, fetch: Fetch) -> None:
        if self._leadership and fetch.epoch == self.partition.epoch:
            self._leadership.fetched(fetch, self._now_s)
        else:
            reply = FetchReply(self.name, self._number, fetch.epoch, fetch.number, leads=False)
            self._outbox.add(Send(fetch.sender, reply))

    def _lead_on(self, leadership: Leadership) -> None:
        durable = min(self._outbox.durable_index, self.log.last_index)
        self.high_watermark = max(self.high_watermark, leadership.high_watermark(durable))
        self._settle(leadership, durable)
        if request := leadership.request(self.high_watermark, self._alive, self._now_s):
            self._outbox.add(ToController(request))
        for name, reply in leadership.replies(self.high_watermark, durable, self._now_s):
            self._outbox.add(Send(name, reply))

    def _settle(self, leadership: Leadership, durable: int) -> None:
        reached = {Acks.NONE: self.log.last_index, Acks.LEADER: durable, Acks.ALL: self.high_watermark}
        too_few = len(self.partition.isr) < self._settings.min_insync_replicas
        for acks, produced in leadership.produced.items():
            while produced and produced[0].index <= reached[acks]:
                request, index = produced[0].request, produced.popleft().index
                if acks is Acks.ALL and too_few:
                    self._outbox.add(NotAcknowledged(request, Problem.NOT_ENOUGH_REPLICAS_AFTER_APPEND))
                else:
                    self._outbox.add(Acknowledged(request, index, self.partition.epoch))

    def _step_down(self, leadership: Leadership) -> None:
        for produced in leadership.produced.values():
            for produce in produced:
                self._outbox.add(NotAcknowledged(produce.request, Problem.LEADER_CHANGED))
        for request in leadership.reads:
            self._outbox.add(NotAcknowledged(request, Problem.NOT_LEADER))
        self._leadership = None

    # --- outputs ----------------------------------------------------------------------------------------------

    def _finish(self) -> Outputs:
        self._outbox.write(0, None, self.log)
        if self._leadership:
            self._lead_on(self._leadership)
        self._outbox.let_go()
        if self.high_watermark > self.applied_index:
            self._outbox.add(Apply(self.log.between(self.applied_index + 1, self.high_watermark)))
            self.applied_index = self.high_watermark
        if self._leadership and self._leadership.reads and self.high_watermark >= self._leadership.first_index:
            for request in self._leadership.reads:
                self._outbox.add(ReadReady(request))
            self._leadership.reads = []
        return self._outbox.take()
