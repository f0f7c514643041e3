"""What the leader of a partition knows besides its log, for as long as it leads: how far its followers are."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from testbed.consensus.log import Log
from testbed.isr.messages import AlterPartition, Fetch, FetchReply
from testbed.isr.metadata import Partition
from testbed.isr.outputs import Acks
from testbed.isr.settings import Settings


@dataclass(slots=True)
class Follower:
    """It has durable what the leader has up to `index`; -1 before its first fetch. It was last known to have all that
    the leader had at `caught_up_s`. `fetch` waits for an answer, until `answer_at_s`."""

    caught_up_s: float
    index: int = -1
    fetched_s: float = 0.0
    leader_had_index: int = 0
    fetch: Fetch | None = None
    answer_at_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Produce:
    request: object
    index: int


class Leadership:
    def __init__(
        self, name: str, number: int, partition: Partition, log: Log, settings: Settings, now_s: float
    ) -> None:
        self.partition = partition
        self.first_index = log.last_index
        """Up to here, former leaders may have acknowledged. Until the high watermark is there, reads would be older
        than what was acknowledged, and wait (KIP-207)."""
        self.produced: dict[Acks, deque[Produce]] = {acks: deque() for acks in Acks}
        """Not acknowledged yet, in the order of their indexes."""
        self.reads: list[object] = []
        self.check_at_s = now_s + settings.replica_lag_time_max_s / 2
        self._name = name
        self._number = number
        self._log = log
        self._settings = settings
        in_sync = partition.isr
        self._followers = {
            each: Follower(now_s if each in in_sync else -settings.replica_lag_time_max_s)
            for each in partition.replicas
            if each != name
        }
        self._asked_for: set[str] = set()
        """Everybody in an ISR that was asked for and may still come about."""
        self._ask_again_s = now_s

    def next_deadline(self) -> float:
        waiting = [each.answer_at_s for each in self._followers.values() if each.fetch]
        asking = [self._ask_again_s] if self._asked_for else []
        return min([self.check_at_s, *waiting, *asking])

    def take(self, partition: Partition) -> None:
        """The partition, led in the same epoch. Only another version of it settles what was asked for."""
        if partition.version != self.partition.version:
            self._asked_for = set()
        self.partition = partition

    # --- followers --------------------------------------------------------------------------------------------

    def fetched(self, fetch: Fetch, now_s: float) -> None:
        """How far it is, if its log is the leader's (Kafka's Replica.updateFetchStateOrThrow). Within an epoch a
        follower only adds to its log, so that an older fetch, overtaken by this one, tells nothing."""
        follower = self._followers.get(fetch.sender)
        if follower is None:
            return
        follower.fetch, follower.answer_at_s = fetch, now_s + self._settings.fetch_wait_max_s
        if self._diverging(fetch) is not None:
            return
        if fetch.last_index >= self._log.last_index:
            follower.caught_up_s = max(follower.caught_up_s, now_s)
        elif fetch.last_index >= follower.leader_had_index:
            follower.caught_up_s = max(follower.caught_up_s, follower.fetched_s)
        follower.index = max(follower.index, fetch.last_index)
        follower.fetched_s, follower.leader_had_index = now_s, self._log.last_index

    def replies(self, high_watermark: int, durable_index: int, now_s: float) -> list[tuple[str, FetchReply]]:
        """To fetches for which there is something, or that have waited long enough."""
        last_index = durable_index if self._settings.durable_only else self._log.last_index
        found = []
        for name, follower in self._followers.items():
            if fetch := follower.fetch:
                reply = self._reply_to(fetch, high_watermark, last_index)
                news = reply.entries or reply.diverging or min(high_watermark, fetch.last_index) > fetch.high_watermark
                if news or now_s >= follower.answer_at_s:
                    follower.fetch = None
                    found.append((name, reply))
        return found

    def _reply_to(self, fetch: Fetch, high_watermark: int, last_index: int) -> FetchReply:
        epoch, number = self.partition.epoch, fetch.number
        diverging = self._diverging(fetch)
        first = fetch.last_index + 1
        last_index = min(last_index, fetch.last_index + self._settings.entries_per_fetch)
        entries = () if diverging else self._log.between(first, last_index)
        return FetchReply(self._name, self._number, epoch, number, True, entries, high_watermark, diverging)

    def _diverging(self, fetch: Fetch) -> tuple[int, int] | None:
        if self._log.term_at(fetch.last_index) == fetch.last_epoch:
            return None
        index = self._log.last_index_until(fetch.last_index, fetch.last_epoch)
        epoch = self._log.term_at(index)
        assert epoch is not None
        return index, epoch

    def lags(self) -> dict[str, int]:
        """How many entries of the log each follower is not known to have."""
        return {name: self._log.last_index - max(0, follower.index) for name, follower in self._followers.items()}

    # --- who is in sync ---------------------------------------------------------------------------------------

    def high_watermark(self, durable_index: int) -> int:
        """What all in sync have durable. Whoever may be in sync already for all that is known here counts as well
        (KIP-497: the maximal ISR)."""
        names = set(self.partition.isr) | self._asked_for
        return min(durable_index if name == self._name else self._followers[name].index for name in names)

    def request(self, high_watermark: int, alive: list[str], now_s: float) -> AlterPartition | None:
        """To change the ISR, if it is not as it should be and that has not just been asked for. What was asked for can
        only be taken back by a change that comes about before it, even if that is none."""
        isr = self._wanted_isr(high_watermark, alive, now_s)
        if (isr == self.partition.isr and not self._asked_for) or (self._asked_for and now_s < self._ask_again_s):
            return None
        self._asked_for |= set(isr)
        self._ask_again_s = now_s + self._settings.fetch_wait_max_s
        return AlterPartition(self._name, self._number, self.partition.epoch, self.partition.version, isr)

    def _wanted_isr(self, high_watermark: int, alive: list[str], now_s: float) -> tuple[str, ...]:
        def belongs(name: str) -> bool:
            if name == self._name:
                return True
            follower = self._followers[name]
            if name in self.partition.isr:
                return not self._lags(follower, now_s)
            return name in alive and follower.index >= max(high_watermark, self.first_index)

        isr = tuple(name for name in self.partition.replicas if belongs(name))
        return self.partition.isr if set(isr) == set(self.partition.isr) else isr

    def _lags(self, follower: Follower, now_s: float) -> bool:
        """Kafka's Replica.isCaughtUp: who has all that there is does not lag, however silent; the controller fences
        the dead."""
        late = now_s > follower.caught_up_s + self._settings.replica_lag_time_max_s
        return late and follower.index != self._log.last_index
