"""What followers pass on to their leader comes whole and in order, or it is said that something was missed."""

from __future__ import annotations

import math

from testbed.control.masters.messages import Join, Joined, Missed, PassOn
from testbed.control.masters.streams import Downstreams, Upstream
from testbed.control.messages import LeaseRenewed

LEASE = LeaseRenewed("east-a-1")
FIRST, SECOND, THIRD = (PassOn("b", 7, number, "east-a-1", 1, LEASE) for number in (1, 2, 3))


def test_a_follower_asks_again_until_it_is_answered_and_passes_nothing_on_before() -> None:
    upstream = Upstream("b", 7, again_after_s=1.0)
    assert upstream.join("b_1", 5.0) == Join("b", 7, "b_1")
    assert upstream.next_deadline() == 6.0
    assert upstream.join("b_1", 5.9) is None
    assert upstream.join("b_1", 6.0) is not None
    assert upstream.pass_on("east-a-1", 1, LEASE) is None
    upstream.accept(Joined(6, 10))
    assert upstream.pass_on("east-a-1", 1, LEASE) is None, "that answer was for another stream"
    upstream.accept(Joined(7, 10))
    assert upstream.next_deadline() == math.inf
    assert [upstream.pass_on("east-a-1", 1, LEASE) for _ in range(2)] == [FIRST, SECOND]


def test_a_follower_knows_all_when_it_has_applied_what_its_leader_had() -> None:
    upstream = Upstream("b", 7, again_after_s=1.0)
    assert not upstream.knows_all(99)
    upstream.accept(Joined(7, 10))
    assert not upstream.knows_all(9)
    assert upstream.knows_all(10)


def test_a_leader_takes_what_comes_next_once_and_tells_who_has_a_gap() -> None:
    streams = Downstreams()
    assert streams.take(FIRST) == Missed(7), "it was never joined"
    streams.accept(Join("b", 7, "b_1"))
    assert [streams.take(each) for each in (FIRST, FIRST, THIRD, SECOND)] == [FIRST, None, Missed(7), SECOND]
    streams.accept(Join("b", 7, "b_1"))
    assert streams.take(THIRD) == THIRD, "who asks twice for one stream goes on with it"
    streams.accept(Join("b", 8, "b_1"))
    assert streams.take(THIRD) == Missed(7)
