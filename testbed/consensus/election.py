"""Who gets a vote, and who has enough of them."""

from __future__ import annotations

from testbed.consensus.log import Log
from testbed.consensus.membership import Membership
from testbed.consensus.messages import RequestVote, VoteReply


def may_vote(request: RequestVote, term: int, vote: str | None, log: Log, protects_leader: bool) -> bool:
    """One vote a term, for a log that lacks nothing of one's own (3.6.1), and not while there is a leader (9.6), unless
    that leader wants it."""
    free = request.term > term if request.pre else vote in (None, request.sender)
    protected = protects_leader and not request.transfer
    return free and not protected and log.is_behind(request.last_term, request.last_index)


def may_stand(name: str, log: Log, commit_index: int) -> bool:
    """Voters may, and who would be one were it not for a change that may not be committed: nobody else may have the
    entries that others lack (4.2.2, figure 4.6)."""
    members, since = log.membership, log.membership_index
    if name not in members.voters and since > commit_index:
        members = log.membership_at(since - 1)
    return name in members.voters


class Ballot:
    """One candidate's votes for a term."""

    def __init__(self, term: int, pre: bool) -> None:
        self.pre = pre
        self._term = term
        self._votes: set[str] = set()

    def count(self, reply: VoteReply) -> None:
        if reply.granted and (reply.term, reply.pre) == (self._term, self.pre):
            self._votes.add(reply.sender)

    def count_own(self, name: str) -> None:
        self._votes.add(name)

    def is_won(self, membership: Membership) -> bool:
        return membership.majority_in(self._votes)
