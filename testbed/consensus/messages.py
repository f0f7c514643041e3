"""What replicas tell each other. Any of them can be lost, doubled, late, or overtaken by another."""

from __future__ import annotations

from dataclasses import dataclass

from testbed.consensus.log import Entry, Snapshot


@dataclass(frozen=True, slots=True)
class RequestVote:
    """`pre`: would you vote for me in that term? Changes nothing at whoever is asked (9.6). `transfer`: the leader
    wants this election, so nobody needs to protect it (4.2.3)."""

    sender: str
    term: int
    last_index: int
    last_term: int
    pre: bool = False
    transfer: bool = False


@dataclass(frozen=True, slots=True)
class VoteReply:
    """The term is that of the request if it is granted, else the voter's own."""

    sender: str
    term: int
    granted: bool
    pre: bool = False


@dataclass(frozen=True, slots=True)
class AppendEntries:
    """With or without entries, it is the leader's heartbeat. The reply carries back its `round` (6.4)."""

    sender: str
    term: int
    previous_index: int
    previous_term: int
    entries: tuple[Entry, ...]
    commit_index: int
    round: int


@dataclass(frozen=True, slots=True)
class InstallSnapshot:
    """For a follower that needs entries which the leader has no more. In one piece: cutting it is the transport's."""

    sender: str
    term: int
    snapshot: Snapshot
    round: int


@dataclass(frozen=True, slots=True)
class AppendReply:
    """Accepted: up to `index` the log is the leader's, and durable. Otherwise the entry at `previous_index` was another
    one or none, and `index` is where the logs may agree."""

    sender: str
    term: int
    accepted: bool
    index: int
    previous_index: int
    round: int


@dataclass(frozen=True, slots=True)
class TimeoutNow:
    """The leader asks its successor to stand for election at once (3.10)."""

    sender: str
    term: int


Message = RequestVote | VoteReply | AppendEntries | InstallSnapshot | AppendReply | TimeoutNow
