"""What a leader knows besides its log, and only for as long as it leads: followers, reads, a transfer under way."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from testbed.consensus.log import Log
from testbed.consensus.membership import Membership
from testbed.consensus.messages import AppendEntries, AppendReply, InstallSnapshot
from testbed.consensus.settings import Settings


@dataclass(slots=True)
class Follower:
    """Its log is the leader's up to `match_index`. `next_index` is what to send next.

    While it is `probing`, nobody knows where the logs agree, and one message at a time goes out to find out; else
    messages follow each other without waiting (10.2.1).
    """

    next_index: int
    heard_s: float
    match_index: int = 0
    probing: bool = True
    probed: bool = False
    round: int = 0
    snapshot_again_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Read:
    """Current once a majority has answered `round`, and `index` is applied."""

    request: object
    round: int
    index: int


@dataclass(frozen=True, slots=True)
class Transfer:
    request: object
    successor: str
    until_s: float


class Leadership:
    def __init__(self, name: str, term: int, log: Log, settings: Settings, now_s: float) -> None:
        self.first_index = log.last_index + 1
        """Of the entry with which this term begins. Whatever was committed before is known to be once it is."""
        self.heartbeat_at_s = now_s
        self.transfer: Transfer | None = None
        self._name = name
        self._term = term
        self._log = log
        self._settings = settings
        self._followers: dict[str, Follower] = {}
        self._round = 0
        self._reads: deque[Read] = deque()
        self.follow_membership(now_s)

    @property
    def followers(self) -> list[str]:
        return list(self._followers)

    def follow_membership(self, now_s: float) -> None:
        old = self._followers
        others = self._log.membership.everyone_but(self._name)
        self._followers = {name: old.get(name) or Follower(self.first_index, now_s) for name in others}

    def heard(self, sender: str, now_s: float) -> bool:
        """False from whoever is no follower any more."""
        follower = self._followers.get(sender)
        if follower:
            follower.heard_s = now_s
        return follower is not None

    def problem_with_change(self, new: Membership, commit_index: int) -> str | None:
        old = self._log.membership
        if commit_index < max(self.first_index, self._log.membership_index):
            return "the change before, or this leader's first entry, is not committed yet"
        for name in new.voters:
            if name in old.learners and self.match_index(name) < commit_index:
                return f"{name} has not caught up yet"
        return old.problem_with(new)

    # --- replication ------------------------------------------------------------------------------------------

    def message_for(
        self, name: str, commit_index: int, now_s: float, heartbeat: bool
    ) -> AppendEntries | InstallSnapshot | None:
        """What that follower needs next; without anything new only if it is a heartbeat."""
        follower = self._followers[name]
        if follower.next_index <= self._log.snapshot.index:
            if now_s >= follower.snapshot_again_s:
                follower.snapshot_again_s = now_s + self._settings.election_timeout_s
                return InstallSnapshot(self._name, self._term, self._log.snapshot, self._round)
            return self._append(self._log.last_index + 1, 0, commit_index) if heartbeat else None
        if follower.probing and follower.probed and not heartbeat:
            return None
        room = follower.match_index + self._settings.entries_in_flight - follower.next_index + 1
        message = self._append(follower.next_index, max(0, min(room, self._settings.entries_per_message)), commit_index)
        if not message.entries and not heartbeat and not follower.probing:
            return None
        if follower.probing:
            follower.probed = True
        else:
            follower.next_index += len(message.entries)
        return message

    def _append(self, first: int, count: int, commit_index: int) -> AppendEntries:
        previous_term = self._log.term_at(first - 1)
        assert previous_term is not None
        entries = self._log.between(first, first + count - 1) if count else ()
        return AppendEntries(self._name, self._term, first - 1, previous_term, entries, commit_index, self._round)

    def has_more_for(self, name: str) -> bool:
        return self._followers[name].next_index <= self._log.last_index

    def take_reply(self, reply: AppendReply) -> bool:
        """True if there is reason to send that follower more."""
        follower = self._followers[reply.sender]
        follower.round = max(follower.round, reply.round)
        if reply.accepted:
            follower.match_index = max(follower.match_index, reply.index)
            follower.next_index = max(follower.next_index, follower.match_index + 1)
            follower.probing = False
            return self.has_more_for(reply.sender)
        asked = follower.next_index - 1 if follower.probing else reply.previous_index
        if reply.previous_index != asked or reply.previous_index <= follower.match_index:
            return False  # an old answer, which another has overtaken
        follower.next_index = max(follower.match_index, min(reply.index, reply.previous_index - 1)) + 1
        follower.probing, follower.probed = True, False
        return True

    def committed_index(self, durable_index: int) -> int:
        """What a majority has durable, if it is of this term: an entry of an older one that a majority has can still be
        overwritten, and is committed with the first of this term (3.6.2). 0 if there is nothing."""
        index = self._majority_reached(lambda follower: follower.match_index, durable_index)
        return int(index) if index > 0 and self._log.term_at(int(index)) == self._term else 0

    def match_index(self, name: str) -> int:
        return self._followers[name].match_index

    # --- is it still the leader? ------------------------------------------------------------------------------

    def heard_majority_s(self, now_s: float) -> float:
        """When a majority was last heard (6.2)."""
        return self._majority_reached(lambda follower: follower.heard_s, now_s)

    def begin_read(self, request: object, commit_index: int) -> None:
        """To be confirmed by a round of heartbeats that begins after the read (6.4). What former leaders have committed
        is applied at the latest with the first entry of this term."""
        self._round += 1
        self._reads.append(Read(request, self._round, max(commit_index, self.first_index)))

    def take_ready_reads(self, applied_index: int) -> list[object]:
        ready: list[object] = []
        if self._reads:
            confirmed = self._majority_reached(lambda follower: follower.round, self._round)
            while self._reads and self._reads[0].round <= confirmed and self._reads[0].index <= applied_index:
                ready.append(self._reads.popleft().request)
        return ready

    def pending_reads(self) -> list[object]:
        return [read.request for read in self._reads]

    def _majority_reached(self, value_of: Callable[[Follower], float], own: float) -> float:
        return self._log.membership.majority_reached(
            lambda voter: own if voter == self._name else value_of(self._followers[voter])
        )
