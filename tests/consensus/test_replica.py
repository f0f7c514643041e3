"""The rules, one by one. Sections are those of Ongaro's dissertation."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from testbed.consensus.log import Entry, Log, Snapshot
from testbed.consensus.membership import Membership
from testbed.consensus.messages import AppendEntries, AppendReply, InstallSnapshot, RequestVote, TimeoutNow, VoteReply
from testbed.consensus.outputs import Accepted, Apply, ReadReady, Refused, Restore, Role, RoleChanged, Send, Write
from testbed.consensus.replica import Outputs, Replica
from testbed.consensus.storage import Stored
from tests.consensus.cluster import SETTINGS, Cluster

ABC = Membership(("a", "b", "c"))


def of(kind: type, outputs: Outputs) -> list[object]:
    return [output for output in outputs if isinstance(output, kind)]


def follower(*terms: int, term: int = 0) -> Replica:
    """`a` of three, with entries of these terms in its log."""
    entries = tuple(Entry(index, of_term, f"{index}.{of_term}") for index, of_term in enumerate(terms, 1))
    stored = replace(Stored.nothing(ABC), term=max((term, *terms)), entries=entries)
    return Replica("a", stored, SETTINGS, Random(1), 0.0)


def append(previous: tuple[int, int], *terms: int, commit: int = 0, term: int = 9) -> AppendEntries:
    """From `b`, what follows after that index and term."""
    entries = tuple(Entry(index, of_term, None) for index, of_term in enumerate(terms, previous[0] + 1))
    return AppendEntries("b", term, *previous, entries, commit, 0)


# --- what must be durable before what ----------------------------------------------------------------------------


def test_a_vote_leaves_once_it_is_durable() -> None:
    """3.8: persistent state is updated before responding."""
    voter = follower()
    outputs = voter.receive(RequestVote("b", 1, 0, 0), 5.0)
    assert outputs == (Write(1, 1, "b", (), None), RoleChanged(Role.FOLLOWER, 1, None))
    assert voter.persisted(1, 5.1) == (Send("b", VoteReply("a", 1, True)),)


def test_entries_are_acknowledged_and_applied_once_they_are_durable() -> None:
    replica = follower()
    outputs = replica.receive(append((0, 0), 9, commit=1), 5.0)
    assert [type(output) for output in outputs] == [Write, RoleChanged]
    outputs = replica.persisted(1, 5.1)
    assert of(Send, outputs) == [Send("b", AppendReply("a", 9, True, 1, 0, 0))]
    assert of(Apply, outputs) == [Apply((Entry(1, 9, None),))]


def test_a_message_waits_for_all_writes_before_it_and_for_none_after_it() -> None:
    replica = follower()
    replica.receive(append((0, 0), 9), 5.0)
    replica.receive(append((1, 9), 9), 5.0)
    assert len(of(Send, replica.persisted(1, 5.1))) == 1
    assert len(of(Send, replica.persisted(2, 5.1))) == 1


def test_a_leader_counts_itself_once_its_entry_is_durable() -> None:
    """10.2.1: it sends entries while it writes them."""
    alone = Replica("a", Stored.nothing(Membership(("a",))), SETTINGS, Random(1), 0.0)
    alone.tick(2.0)
    outputs = alone.persisted(1, 2.0)
    assert alone.role is Role.LEADER
    assert not of(Apply, outputs)
    assert of(Apply, alone.persisted(2, 2.1)) == [Apply((Entry(1, 1, None),))]


@pytest.mark.parametrize(("at_once", "messages"), [(True, 8), (False, 4)])
def test_followers_learn_what_is_committed_at_once_or_with_what_they_are_told_next(
    at_once: bool, messages: int
) -> None:
    cluster = Cluster("a", "b", "c", settings=replace(SETTINGS, commits_at_once=at_once))
    leader = cluster.elect("a")
    cluster.pass_time(0.2)
    cluster.sent.clear()
    cluster.do("a", leader.propose("request", "x", cluster.now_s))
    assert leader.applied_index == 2
    assert len(cluster.sent) == messages  # entries, answers, and news of the commit with their answers
    assert {cluster.replicas[name].applied_index for name in "bc"} == ({2} if at_once else {1})
    cluster.pass_time(0.2)
    assert {cluster.replicas[name].applied_index for name in "bc"} == {2}


def test_what_is_stored_follows_from_the_writes() -> None:
    stored = Stored.nothing(ABC)
    entries = tuple(Entry(index, 1, index) for index in (1, 2, 3))
    stored = stored.after(Write(1, 1, "b", entries, None))
    stored = stored.after(Write(2, 2, None, (Entry(2, 2, "other"),), None))
    assert (stored.term, stored.vote, stored.entries) == (2, None, (entries[0], Entry(2, 2, "other")))
    at_an_entry, at_none = Snapshot(1, 1, ABC, "state"), Snapshot(2, 1, ABC, "state")
    assert stored.after(Write(3, 2, None, (), at_an_entry)).entries == (Entry(2, 2, "other"),)
    assert stored.after(Write(3, 2, None, (), at_none)).entries == ()


# --- elections ----------------------------------------------------------------------------------------------------


def test_one_vote_a_term_and_only_for_a_log_that_lacks_nothing() -> None:
    """3.4 and 3.6.1."""
    for last, granted in (((1, 2), False), ((2, 1), False), ((2, 2), True), ((1, 3), True)):
        voter = follower(1, 2)
        voter.receive(RequestVote("b", 5, *last), 5.0)
        (send,) = of(Send, voter.persisted(1, 5.0))
        assert send == Send("b", VoteReply("a", 5, granted))
    assert voter.receive(RequestVote("c", 5, 9, 9), 5.0) == (Send("c", VoteReply("a", 5, False)),)


def test_who_comes_back_from_a_cut_deposes_nobody() -> None:
    """9.6: without a majority that would vote for it, its term stays what it was."""
    cluster = Cluster("a", "b", "c")
    leader = cluster.elect("a")
    cluster.away = {"c"}
    cluster.pass_time(20.0)
    assert cluster.replicas["c"].role is Role.PRE_CANDIDATE
    cluster.away = set()
    cluster.pass_time(5.0)
    assert (leader.role, leader.term) == (Role.LEADER, 1)
    assert cluster.replicas["c"].leader == "a"


def test_nobody_votes_while_there_is_a_leader_unless_it_wants_that() -> None:
    """4.2.3: not even the term of such a request is taken."""
    replica = follower()
    replica.receive(append((0, 0), term=1), 5.0)
    replica.persisted(1, 5.0)
    request = RequestVote("c", 7, 9, 9)
    assert replica.receive(request, 5.9) == ()
    assert replica.term == 1
    replica.receive(replace(request, transfer=True), 5.9)
    assert (replica.term, replica.vote) == (7, "c")


def test_a_leader_steps_down_that_has_not_heard_a_majority_for_an_election_time_out() -> None:
    """6.2. With half of the others it goes on."""
    cluster = Cluster("a", "b", "c")
    leader = cluster.elect("a")
    cluster.away = {"b"}
    cluster.pass_time(3.0)
    assert leader.role is Role.LEADER
    cluster.away = {"b", "c"}
    cluster.pass_time(0.9)
    assert leader.role is Role.LEADER
    cluster.pass_time(0.3)
    assert leader.role is not Role.LEADER


def test_the_election_time_out_lies_between_once_and_twice_what_is_set() -> None:
    """3.4."""
    deadlines = [Replica("a", Stored.nothing(ABC), SETTINGS, Random(seed), 3.0).next_deadline() for seed in range(50)]
    assert 4.0 <= min(deadlines) < 4.2
    assert 4.8 < max(deadlines) <= 5.0


def test_leadership_is_handed_over_without_waiting_for_a_time_out() -> None:
    """3.10."""
    cluster = Cluster("a", "b", "c")
    leader = cluster.elect("a")
    cluster.propose("a", "before")
    cluster.do("a", leader.transfer_leadership("transfer", "b", cluster.now_s))
    assert cluster.replicas["b"].role is Role.LEADER
    assert leader.leader == "b"
    cluster.propose("b", "after")
    assert cluster.applied("c") == ["before", "after"]


def test_a_transfer_is_given_up_after_an_election_time_out() -> None:
    """3.10. Until then, nothing new is accepted."""
    cluster = Cluster("a", "b", "c")
    leader = cluster.elect("a")
    cluster.away = {"b"}
    cluster.propose("a", "b lacks this")
    cluster.do("a", leader.transfer_leadership("transfer", "b", cluster.now_s))
    cluster.propose("a", "meanwhile")
    cluster.pass_time(1.2)
    refused = cluster.take("a", Refused)
    assert refused == [
        Refused("meanwhile", "leadership is being transferred", "a"),
        Refused("transfer", "b did not take over in time", "a"),
    ]
    cluster.propose("a", "later")
    assert cluster.take("a", Accepted)


# --- the log ------------------------------------------------------------------------------------------------------


def test_entries_are_taken_where_the_logs_agree_before_them() -> None:
    """3.5: consistency check of AppendEntries. A refusal says where they may agree."""
    replica = follower(1, 1, 2)
    replica.receive(append((4, 4), 4), 5.0)
    (send,) = of(Send, replica.persisted(1, 5.0))
    assert send == Send("b", AppendReply("a", 9, False, 3, 4, 0))
    (send,) = replica.receive(append((3, 1), 4), 5.0)
    assert send == Send("b", AppendReply("a", 9, False, 2, 3, 0))
    outputs = replica.receive(append((2, 1), 4), 5.0)
    assert of(Write, outputs) == [Write(2, 9, None, (Entry(3, 4, None),), None)]


def test_an_older_and_shorter_message_takes_nothing_back() -> None:
    """3.5: entries are deleted if they conflict, not if the message ends before them."""
    log = Log(Snapshot(0, 0, ABC, None), [Entry(1, 1, "x"), Entry(2, 1, "y"), Entry(3, 2, "z")])
    assert log.missing_of((Entry(1, 1, "x"), Entry(2, 1, "y"))) == ()
    assert log.missing_of((Entry(2, 1, "y"), Entry(3, 3, "new"))) == (Entry(3, 3, "new"),)


def test_a_follower_commits_no_further_than_the_message_has_confirmed() -> None:
    """3.5: its own tail may be another one than the leader's."""
    replica = follower(1, 1, 1)
    replica.receive(append((1, 1), commit=3), 5.0)
    assert replica.commit_index == 1


def test_entries_of_older_terms_are_committed_by_one_of_the_own_term() -> None:
    """3.6.2, figure 3.7: a majority has entry 1, and it can be overwritten all the same."""
    leader = follower(1)
    leader.tick(2.0)
    leader.receive(VoteReply("b", 2, True, pre=True), 2.0)
    leader.persisted(1, 2.0)
    leader.receive(VoteReply("b", 2, True), 2.0)
    leader.persisted(2, 2.0)
    assert (leader.role, leader.log.last_index) == (Role.LEADER, 2)
    leader.receive(AppendReply("b", 2, True, 1, 0, 0), 2.1)
    assert leader.commit_index == 0
    leader.receive(AppendReply("b", 2, True, 2, 1, 0), 2.1)
    assert leader.commit_index == 2


def test_a_follower_that_is_far_behind_gets_a_snapshot_and_what_follows() -> None:
    """5.3."""
    cluster = Cluster("a", "b", "c")
    leader = cluster.elect("a")
    cluster.away = {"c"}
    for number in range(5):
        cluster.propose("a", number)
    cluster.do("a", leader.compact(4, "after entry 4", cluster.now_s))
    cluster.away = set()
    cluster.pass_time(1.5)
    assert any(isinstance(message, InstallSnapshot) for message in cluster.sent)
    assert cluster.take("c", Restore) == [Restore(Snapshot(4, 1, ABC, "after entry 4"))]
    assert cluster.replicas["c"].applied_index == leader.applied_index == 6


# --- reads --------------------------------------------------------------------------------------------------------


def test_a_read_is_current_once_a_majority_still_follows() -> None:
    """6.4."""
    cluster = Cluster("a", "b", "c")
    leader = cluster.elect("a")
    cluster.do("a", leader.read("read", cluster.now_s))
    assert cluster.take("a", ReadReady) == [ReadReady("read")]


def test_a_read_without_a_quorum_is_refused() -> None:
    """6.4 and 6.2. Who does not lead refuses at once, and says who does."""
    cluster = Cluster("a", "b", "c")
    leader = cluster.elect("a")
    (refused,) = cluster.replicas["b"].read("elsewhere", cluster.now_s)
    assert refused == Refused("elsewhere", "not the leader", "a")
    cluster.away = {"a"}
    cluster.do("a", leader.read("read", cluster.now_s))
    cluster.pass_time(1.2)
    assert not cluster.take("a", ReadReady)
    assert leader.role is not Role.LEADER


def test_a_new_leader_reads_once_an_entry_of_its_term_is_committed() -> None:
    """6.4: only then does it know what former leaders have committed."""
    leader = follower(1)
    leader.tick(2.0)
    for reply in (VoteReply("b", 2, True, pre=True), VoteReply("b", 2, True)):
        leader.receive(reply, 2.0)
        leader.persisted(1, 2.0)
    leader.persisted(2, 2.0)
    leader.read("read", 2.0)
    outputs = leader.receive(AppendReply("b", 2, True, 1, 1, round=1), 2.1)
    assert not of(ReadReady, outputs)
    outputs = leader.receive(AppendReply("b", 2, True, 2, 1, round=1), 2.2)
    assert [type(output) for output in outputs][-2:] == [Apply, ReadReady]


# --- members ------------------------------------------------------------------------------------------------------


def test_members_change_one_at_a_time_and_not_before_the_leaders_own_commit() -> None:
    """4.1, and raft-dev, July 2015: "bug in single-server membership changes"."""
    cluster = Cluster("a", "b", "c")
    leader = cluster.elect("a")
    cluster.away = {"b", "c"}
    with_d = Membership(ABC.voters, ("d",))
    cluster.do("a", leader.change_membership("first", with_d, cluster.now_s))
    cluster.do("a", leader.change_membership("second", ABC, cluster.now_s))
    (refused,) = cluster.take("a", Refused)
    assert refused == Refused("second", "the change before, or this leader's first entry, is not committed yet", "a")
    fresh = follower()
    fresh.tick(2.0)
    for reply in (VoteReply("b", 1, True, pre=True), VoteReply("b", 1, True)):
        fresh.receive(reply, 2.0)
        fresh.persisted(1, 2.0)
    assert fresh.role is Role.LEADER
    assert of(Refused, fresh.change_membership("early", with_d, 2.0))


@pytest.mark.parametrize(
    ("new", "problem"),
    [
        (Membership(()), "without voters nothing can be decided"),
        (Membership(("a",)), "one voter at a time can join or leave, not b, c"),
        (Membership(("a", "b", "c", "d")), "d is no learner yet"),
        (Membership(("a", "b")), None),
        (Membership(("a", "b", "c", "e")), None),
    ],
)
def test_majorities_before_and_after_a_change_overlap(new: Membership, problem: str | None) -> None:
    """4.1; learners catch up first (4.2.1)."""
    found = Membership(("a", "b", "c"), ("e",)).problem_with(new)
    assert found == problem or (found and problem and found.startswith(problem))


def test_a_replica_joins_as_a_learner_then_votes() -> None:
    """4.2.1."""
    cluster = Cluster("a", "b", "c")
    leader = cluster.elect("a")
    cluster.propose("a", "before d")
    cluster.do("a", leader.change_membership(1, Membership(ABC.voters, ("d",)), cluster.now_s))
    promoted = Membership(("a", "b", "c", "d"))
    cluster.do("a", leader.change_membership(2, promoted, cluster.now_s))
    assert cluster.take("a", Refused) == [Refused(2, "d has not caught up yet", "a")]
    cluster.add("d", Stored.nothing())
    cluster.pass_time(0.3)
    assert cluster.applied("d")[0] == "before d"
    cluster.do("a", leader.change_membership(3, promoted, cluster.now_s))
    cluster.pass_time(0.3)
    assert cluster.replicas["d"].log.membership == promoted


def test_a_leader_that_is_removed_leads_until_that_is_committed() -> None:
    """4.2.2."""
    cluster = Cluster("a", "b", "c")
    leader = cluster.elect("a")
    cluster.away = {"b", "c"}
    cluster.do("a", leader.change_membership(1, Membership(("b", "c")), cluster.now_s))
    assert leader.role is Role.LEADER
    cluster.away = set()
    cluster.pass_time(0.2)
    assert leader.role is Role.FOLLOWER
    cluster.pass_time(5.0)
    assert leader.next_deadline() == float("inf")
    assert {cluster.replicas[name].leader for name in ("b", "c")} <= {"b", "c"}


def test_who_is_removed_stands_while_that_may_not_be_committed() -> None:
    """4.2.2, figure 4.6: it alone may have the entries that the others lack."""
    cluster = Cluster("a", "b")
    leader = cluster.elect("a")
    cluster.away = {"b"}
    cluster.do("a", leader.change_membership(1, Membership(("b",)), cluster.now_s))
    cluster.pass_time(2.0)
    assert leader.role is not Role.LEADER
    cluster.away = set()
    cluster.pass_time(10.0)
    assert cluster.replicas["b"].role is Role.LEADER
    assert cluster.replicas["b"].log.membership == Membership(("b",))


def test_a_request_to_stand_of_an_older_term_is_no_request() -> None:
    replica = follower(term=3)
    assert replica.receive(TimeoutNow("b", 2), 1.0) == ()
    assert replica.role is Role.FOLLOWER
