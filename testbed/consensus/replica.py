"""One replica: what it does with messages, time and requests. The only mutable thing that others see."""

from __future__ import annotations

import math
from random import Random

from testbed.consensus.election import Ballot, may_stand, may_vote
from testbed.consensus.leadership import Leadership, Transfer
from testbed.consensus.log import Entry, Log, Snapshot
from testbed.consensus.membership import Membership
from testbed.consensus.messages import (
    AppendEntries,
    AppendReply,
    InstallSnapshot,
    Message,
    RequestVote,
    TimeoutNow,
    VoteReply,
)
from testbed.consensus.outbox import Outbox
from testbed.consensus.outputs import Accepted, Apply, Output, ReadReady, Refused, Restore, Role, RoleChanged, Send
from testbed.consensus.settings import Settings
from testbed.consensus.storage import Stored

Outputs = tuple[Output, ...]


class Replica:
    """Its own clock gives `now_s`, which never goes back; it needs not be anybody else's. Every method returns what is
    to be done, in this order. After a crash a new Replica begins with what the disk holds."""

    def __init__(self, name: str, stored: Stored, settings: Settings, random: Random, now_s: float) -> None:
        self.name = name
        self.term = stored.term
        self.vote = stored.vote
        self.log = Log(stored.snapshot, stored.entries)
        self.role = Role.FOLLOWER
        self.leader: str | None = None
        self.commit_index = stored.snapshot.index
        self.applied_index = stored.snapshot.index
        self._settings = settings
        self._random = random
        self._now_s = now_s
        self._outbox: Outbox[Message, Output] = Outbox(self.term, self.vote, self.log.last_index)
        self._ballot: Ballot | None = None
        self._leadership: Leadership | None = None
        self._leader_heard_s = -math.inf
        self._election_at_s = 0.0
        self._await_leader()
        self._reported: tuple[Role, int, str | None] = (self.role, self.term, self.leader)

    # --- inputs -----------------------------------------------------------------------------------------------

    def receive(self, message: Message, now_s: float) -> Outputs:
        self._now_s = now_s
        if self._takes(message):
            match message:
                case AppendEntries():
                    self._append(message)
                case AppendReply():
                    self._take_append_reply(message)
                case RequestVote():
                    self._consider_vote(message)
                case VoteReply():
                    if self._ballot:
                        self._ballot.count(message)
                case InstallSnapshot():
                    self._install(message)
                case TimeoutNow():
                    self._campaign(pre=False, transfer=True)
        return self._finish()

    def tick(self, now_s: float) -> Outputs:
        """To be called when `next_deadline()` has come; at any other time it does nothing."""
        self._now_s = now_s
        if self._leadership:
            self._lead_on(self._leadership)
        elif now_s >= self._election_at_s:
            self._campaign(pre=True)
        return self._finish()

    def next_deadline(self) -> float:
        if self._leadership:
            return self._leadership.heartbeat_at_s
        return self._election_at_s if may_stand(self.name, self.log, self.commit_index) else math.inf

    def persisted(self, number: int, now_s: float) -> Outputs:
        """The write of that number is durable, and so are all before it."""
        self._now_s = now_s
        self._outbox.persisted(number)
        return self._finish()

    def propose(self, request: object, command: object, now_s: float) -> Outputs:
        """Accepted or Refused. `command` is the state machine's own, not None."""
        self._now_s = now_s
        if leadership := self._leadership_for(request):
            self._add_entry(leadership, request, command)
        return self._finish()

    def read(self, request: object, now_s: float) -> Outputs:
        """ReadReady, at once or later, or Refused: the leader must hear from a majority that it still is (6.4). Many
        reads may share a request."""
        self._now_s = now_s
        if leadership := self._leadership:
            leadership.begin_read(request, self.commit_index)
            self._send_to_all(leadership)
        else:
            self._refuse(request, "not the leader")
        return self._finish()

    def change_membership(self, request: object, membership: Membership, now_s: float) -> Outputs:
        """Accepted or Refused. Only after an entry of the leader's own term is committed, and with it what came before:
        else two leaders could each change a membership that the other does not know (Ongaro, raft-dev, July 2015)."""
        self._now_s = now_s
        if leadership := self._leadership_for(request):
            if problem := leadership.problem_with_change(membership, self.commit_index):
                self._refuse(request, problem)
            else:
                self._add_entry(leadership, request, membership)
        return self._finish()

    def transfer_leadership(self, request: object, successor: str, now_s: float) -> Outputs:
        """Bring the successor's log up to date, then ask it to stand for election (3.10). Refused at once, or after T
        without success; a change of role says that it worked."""
        self._now_s = now_s
        if leadership := self._leadership_for(request):
            if successor == self.name or successor not in self.log.membership.voters:
                self._refuse(request, f"{successor} is the leader already, or no voter")
            else:
                until_s = now_s + self._settings.election_timeout_s
                leadership.transfer = Transfer(request, successor, until_s)
                self._send_to(leadership, successor)
                self._ask_successor(leadership)
        return self._finish()

    def compact(self, index: int, state: object, now_s: float) -> Outputs:
        """Put `state`, the state machine's after entry `index`, which is applied, in the place of the log (5.1)."""
        self._now_s = now_s
        assert index <= self.applied_index
        term = self.log.term_at(index)
        if index > self.log.snapshot.index and term is not None:
            snapshot = Snapshot(index, term, self.log.membership_at(index), state)
            self.log.replace_by(snapshot)
            self._outbox.put_snapshot(snapshot)
        return self._finish()

    # --- terms and roles --------------------------------------------------------------------------------------

    def _takes(self, message: Message) -> bool:
        """False if it is of an older term, or may not start a newer one."""
        if message.term < self.term:
            self._answer_old(message)
            return False
        if message.term > self.term:
            if isinstance(message, RequestVote):
                if message.pre:
                    return True
                if self._protects_leader() and not message.transfer:
                    return False  # without taking its term: it may have been removed, or cut off (4.2.3)
            if not (isinstance(message, VoteReply) and message.pre and message.granted):
                self._follow(message.term, None)
        return True

    def _answer_old(self, message: Message) -> None:
        """Tell whoever asks that its term is over. Old replies are of no use."""
        match message:
            case RequestVote(pre=pre):
                self._outbox.send(message.sender, VoteReply(self.name, self.term, False, pre))
            case AppendEntries(round=round) | InstallSnapshot(round=round):
                self._outbox.send(message.sender, AppendReply(self.name, self.term, False, 0, 0, round))

    def _follow(self, term: int, leader: str | None) -> None:
        if term > self.term:
            self.term, self.vote = term, None
        if self._leadership:
            for request in self._leadership.pending_reads():
                self._refuse(request, "not the leader any more")
            self._leadership = None
            self._await_leader()
        self._ballot = None
        self.role, self.leader = Role.FOLLOWER, leader

    def _follow_leader(self, leader: str) -> None:
        assert not self._leadership, f"{self.name} and {leader} both lead in term {self.term}"
        self._follow(self.term, leader)
        self._leader_heard_s = self._now_s
        self._await_leader()

    def _await_leader(self) -> None:
        timeout_s = self._settings.election_timeout_s
        self._election_at_s = self._now_s + timeout_s * (1 + self._random.random())

    def _protects_leader(self) -> bool:
        """There is a leader, as far as one can know here: nobody else gets a vote (4.2.3, 9.6)."""
        return self._leadership is not None or self._now_s < self._leader_heard_s + self._settings.election_timeout_s

    # --- elections --------------------------------------------------------------------------------------------

    def _campaign(self, pre: bool, transfer: bool = False) -> None:
        if not may_stand(self.name, self.log, self.commit_index):
            return
        self.leader = None
        self._await_leader()
        term = self.term + 1
        self._ballot = Ballot(term, pre)
        self.role = Role.PRE_CANDIDATE if pre else Role.CANDIDATE
        if not pre:
            self.term, self.vote = term, self.name
        request = RequestVote(self.name, term, self.log.last_index, self.log.last_term, pre, transfer)
        for voter in self.log.membership.voters:
            if voter != self.name:
                self._outbox.send(voter, request)

    def _consider_vote(self, request: RequestVote) -> None:
        granted = may_vote(request, self.term, self.vote, self.log, self._protects_leader())
        if granted and not request.pre:
            self.vote = request.sender
            self._await_leader()
        term = request.term if granted else self.term
        self._outbox.send(request.sender, VoteReply(self.name, term, granted, request.pre))

    def _conclude_election(self, ballot: Ballot) -> None:
        if ballot.pre or self._outbox.has_written(self.term, self.name):
            ballot.count_own(self.name)
        if ballot.is_won(self.log.membership):
            if ballot.pre:
                self._campaign(pre=False)
            else:
                self._begin_to_lead()

    def _begin_to_lead(self) -> None:
        self._ballot = None
        self.role, self.leader = Role.LEADER, self.name
        self._leadership = Leadership(self.name, self.term, self.log, self._settings, self._now_s)
        self._add_entry(self._leadership, None, None)
        self._leadership.heartbeat_at_s = self._now_s + self._settings.heartbeat_s

    # --- following --------------------------------------------------------------------------------------------

    def _append(self, message: AppendEntries) -> None:
        self._follow_leader(message.sender)
        previous = message.previous_index
        if previous < self.commit_index:  # what is committed here is the leader's, too
            self._reply(message, True, self.commit_index)
        elif self.log.term_at(previous) != message.previous_term:
            self._reply(message, False, self.log.last_index_until(previous - 1, message.previous_term))
        else:
            missing = self.log.missing_of(message.entries)
            if missing:
                assert missing[0].index > self.commit_index, "a committed entry would be overwritten"
                self.log.put(missing)
                self._outbox.put_entries(tuple(missing))
            last = previous + len(message.entries)
            self.commit_index = max(self.commit_index, min(message.commit_index, last))
            self._reply(message, True, last)

    def _install(self, message: InstallSnapshot) -> None:
        self._follow_leader(message.sender)
        snapshot = message.snapshot
        if snapshot.index > self.commit_index:
            if self.log.term_at(snapshot.index) != snapshot.term:
                self.log.replace_by(snapshot)
                self._outbox.put_snapshot(snapshot)
            self.commit_index = snapshot.index
        self._reply(message, True, self.commit_index)

    def _reply(self, message: AppendEntries | InstallSnapshot, accepted: bool, index: int) -> None:
        previous = message.previous_index if isinstance(message, AppendEntries) else 0
        self._outbox.send(message.sender, AppendReply(self.name, self.term, accepted, index, previous, message.round))

    # --- leading ----------------------------------------------------------------------------------------------

    def _leadership_for(self, request: object) -> Leadership | None:
        if self._leadership and not self._leadership.transfer:
            return self._leadership
        self._refuse(request, "leadership is being transferred" if self._leadership else "not the leader")
        return None

    def _lead_on(self, leadership: Leadership) -> None:
        if self._now_s < leadership.heartbeat_at_s:
            return
        leadership.heartbeat_at_s = self._now_s + self._settings.heartbeat_s
        if self._now_s >= leadership.heard_majority_s(self._now_s) + self._settings.election_timeout_s:
            self._follow(self.term, None)
            return
        if leadership.transfer and self._now_s >= leadership.transfer.until_s:
            self._refuse(leadership.transfer.request, f"{leadership.transfer.successor} did not take over in time")
            leadership.transfer = None
        self._send_to_all(leadership)

    def _add_entry(self, leadership: Leadership, request: object, command: object) -> None:
        entry = Entry(self.log.last_index + 1, self.term, command)
        self.log.put((entry,))
        self._outbox.put_entries((entry,))
        if isinstance(command, Membership):
            leadership.follow_membership(self._now_s)
        if command is not None:
            self._outbox.add(Accepted(request, entry.index, entry.term))
        self._send_to_all(leadership, heartbeat=False)

    def _send_to_all(self, leadership: Leadership, heartbeat: bool = True) -> None:
        for name in leadership.followers:
            self._send_to(leadership, name, heartbeat)

    def _send_to(self, leadership: Leadership, name: str, heartbeat: bool = False) -> None:
        """Without waiting for the own disk: the leader counts itself once its entries are durable (10.2.1), and its
        term and vote have been since before it was elected."""
        message = leadership.message_for(name, self.commit_index, self._now_s, heartbeat)
        if message:
            self._outbox.add(Send(name, message))

    def _take_append_reply(self, reply: AppendReply) -> None:
        leadership = self._leadership
        if leadership and leadership.heard(reply.sender, self._now_s):
            if leadership.take_reply(reply):
                self._send_to(leadership, reply.sender)
            self._ask_successor(leadership)

    def _ask_successor(self, leadership: Leadership) -> None:
        transfer = leadership.transfer
        if transfer and leadership.match_index(transfer.successor) == self.log.last_index:
            self._outbox.send(transfer.successor, TimeoutNow(self.name, self.term))

    def _commit(self, leadership: Leadership) -> None:
        index = leadership.committed_index(self._outbox.durable_index)
        if index > self.commit_index:
            self.commit_index = index
            self._send_to_all(leadership, heartbeat=self._settings.commits_at_once)
            members = self.log.membership
            if self.name not in members.voters and index >= self.log.membership_index:
                self._follow(self.term, None)  # it led until its own removal was committed (4.2.2)

    # --- outputs ----------------------------------------------------------------------------------------------

    def _refuse(self, request: object, reason: str) -> None:
        self._outbox.add(Refused(request, reason, self.leader))

    def _finish(self) -> Outputs:
        if self._ballot:
            self._conclude_election(self._ballot)
        self._outbox.write(self.term, self.vote, self.log)
        if self._leadership:
            self._commit(self._leadership)
        self._outbox.let_go()
        self._apply()
        if self._leadership:
            for request in self._leadership.take_ready_reads(self.applied_index):
                self._outbox.add(ReadReady(request))
        if self._reported != (self.role, self.term, self.leader):
            self._reported = (self.role, self.term, self.leader)
            self._outbox.add(RoleChanged(*self._reported))
        return self._outbox.take()

    def _apply(self) -> None:
        """What is committed and durable here, so that a crash never takes anything from under the state machine."""
        last = min(self.commit_index, self._outbox.durable_index)
        if last > self.applied_index and self.applied_index < self.log.snapshot.index:
            self._outbox.add(Restore(self.log.snapshot))
            self.applied_index = self.log.snapshot.index
        if last > self.applied_index:
            self._outbox.add(Apply(self.log.between(self.applied_index + 1, last)))
            self.applied_index = last
