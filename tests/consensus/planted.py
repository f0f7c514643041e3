"""Errors that implementations of Raft have had, to be planted into this one: a check that finds none of them proves
nothing. Each takes the place of a method for as long as a simulation runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest

from testbed.consensus import replica
from testbed.consensus.leadership import Leadership
from testbed.consensus.log import Entry, Log, Snapshot
from testbed.consensus.membership import Membership
from testbed.consensus.messages import AppendEntries, AppendReply, RequestVote
from testbed.consensus.outbox import Outbox
from testbed.consensus.replica import Replica
from testbed.consensus.storage import Stored

stored_after = Stored.after
begin_read = Leadership.begin_read
let_go = Outbox.let_go
committed_index = Leadership.committed_index
consider_vote = Replica._consider_vote
append = Replica._append
take_reply = Leadership.take_reply


@dataclass(frozen=True)
class Planted:
    owner: object
    method: str
    instead: Callable[..., Any]
    begin: int = 0
    """A schedule from which on it is found soon."""

    @contextmanager
    def in_place(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.owner, self.method, self.instead)
            yield


def commit_any_term(self: Leadership, durable_index: int) -> int:
    return max(0, int(self._majority_reached(lambda follower: follower.match_index, durable_index)))


def forget_vote(self: Stored, write: Any) -> Stored:
    return replace(stored_after(self, write), vote=None)


def forget_term(self: Stored, write: Any) -> Stored:
    return replace(stored_after(self, write), term=self.term, vote=None)


def let_go_at_once(self: Outbox) -> None:
    self._outputs += self._sends
    self._sends = []


def acknowledge_at_once(self: Outbox) -> None:
    self._outputs += [send for send in self._sends if isinstance(send.message, AppendReply)]
    self._sends = [send for send in self._sends if not isinstance(send.message, AppendReply)]
    let_go(self)


def count_itself_at_once(self: Leadership, durable_index: int) -> int:
    return committed_index(self, self._log.last_index)


def truncate_always(self: Log, entries: Sequence[Entry]) -> Sequence[Entry]:
    return entries


def never_truncate(self: Log, entries: Sequence[Entry]) -> Sequence[Entry]:
    return [entry for entry in entries if entry.index > self.last_index]


def keep_tail(self: Log, snapshot: Snapshot) -> None:
    self._entries = self._entries[max(0, snapshot.index - self.snapshot.index) :]
    self._changes = [change for change in self._changes if change.index > snapshot.index]
    self.snapshot = snapshot


def latest_membership(self: Log, index: int) -> Membership:
    return self.membership


def vote_for_any_log(self: Log, last_term: int, last_index: int) -> bool:
    return True


def longer_log_wins(self: Log, last_term: int, last_index: int) -> bool:
    return last_index >= self.last_index


def vote_again(self: Replica, request: RequestVote) -> None:
    if request.pre or self.role.value != "follower":
        consider_vote(self, request)
    else:
        self.vote = None
        consider_vote(self, request)


def append_unchecked(self: Replica, message: AppendEntries) -> None:
    previous = min(message.previous_index, self.log.last_index)
    if (previous < message.previous_index and not message.entries) or previous < self.log.snapshot.index:
        append(self, message)
    else:
        term = self.log.term_at(message.previous_index)
        append(self, replace(message, previous_term=term) if term is not None else message)


def commit_what_leader_commits(self: Replica, message: AppendEntries) -> None:
    append(self, message)
    self.commit_index = max(self.commit_index, min(message.commit_index, self.log.last_index))


def change_before_own_commit(self: Leadership, new: Membership, commit_index: int) -> str | None:
    if commit_index < self._log.membership_index:
        return "not committed"
    return self._log.membership.problem_with(new)


def change_before_last_commit(self: Leadership, new: Membership, commit_index: int) -> str | None:
    if commit_index < self.first_index:
        return "not committed"
    return self._log.membership.problem_with(new)


def change_many(self: Membership, new: Membership) -> str | None:
    return None if new.voters else "none"


def read_without_quorum(self: Leadership, applied_index: int) -> list[object]:
    ready = [read.request for read in self._reads if read.index <= applied_index]
    self._reads.clear()
    return ready


def read_without_round(self: Leadership, request: object, commit_index: int) -> None:
    begin_read(self, request, commit_index)
    self._round -= 1
    self._reads.append(replace(self._reads.pop(), round=self._round))


def read_before_own_commit(self: Leadership, request: object, commit_index: int) -> None:
    begin_read(self, request, commit_index)
    self._reads.append(replace(self._reads.pop(), index=commit_index))


def removed_never_stands(name: str, log: Log, commit_index: int) -> bool:
    return name in log.membership.voters


def never_probe_back(self: Leadership, reply: AppendReply) -> bool:
    return reply.accepted and take_reply(self, reply)


PLANTED: dict[str, Planted] = {
    "entries of an older term are committed by counting": Planted(
        Leadership, "committed_index", commit_any_term, begin=1100
    ),
    "votes are not persisted": Planted(Stored, "after", forget_vote, begin=890),
    "terms are not persisted": Planted(Stored, "after", forget_term),
    "messages leave before what they depend on is durable": Planted(Outbox, "let_go", let_go_at_once),
    "entries are acknowledged before they are durable": Planted(Outbox, "let_go", acknowledge_at_once, begin=150),
    "a leader counts itself before its entries are durable": Planted(
        Leadership, "committed_index", count_itself_at_once
    ),
    "the log is truncated without a conflict": Planted(Log, "missing_of", truncate_always),
    "conflicting entries are kept": Planted(Log, "missing_of", never_truncate),
    "conflicting entries are kept after a snapshot": Planted(Log, "replace_by", keep_tail, begin=200),
    "a snapshot has a membership from after it": Planted(Log, "membership_at", latest_membership, begin=150),
    "votes are given to any log": Planted(Log, "is_behind", vote_for_any_log),
    "the longer log wins, whatever its term": Planted(Log, "is_behind", longer_log_wins),
    "a second vote in a term": Planted(Replica, "_consider_vote", vote_again),
    "entries are appended after any entry": Planted(Replica, "_append", append_unchecked),
    "a follower commits entries that the leader has not confirmed": Planted(
        Replica, "_append", commit_what_leader_commits
    ),
    "members change before the leader's own commit": Planted(
        Leadership, "problem_with_change", change_before_own_commit
    ),
    "members change before the last change is committed": Planted(
        Leadership, "problem_with_change", change_before_last_commit
    ),
    "several voters change at once": Planted(Membership, "problem_with", change_many, begin=260),
    "reads without a quorum": Planted(Leadership, "take_ready_reads", read_without_quorum, begin=820),
    "reads confirmed by an earlier round": Planted(Leadership, "begin_read", read_without_round, begin=820),
    "reads before the leader's own commit": Planted(Leadership, "begin_read", read_before_own_commit),
    "who is removed never stands": Planted(replica, "may_stand", removed_never_stands, begin=150),
    "a follower that lacks entries gets no earlier ones": Planted(Leadership, "take_reply", never_probe_back),
}
