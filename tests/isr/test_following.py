"""What a follower makes of its leader's answers."""

from __future__ import annotations

from typing import Any

import pytest

from testbed.consensus.log import Entry
from testbed.consensus.outputs import ReadReady
from testbed.consensus.storage import Stored
from testbed.isr.messages import FetchReply
from testbed.isr.metadata import Partition
from testbed.isr.outputs import NotAcknowledged, Problem
from testbed.isr.replica import Replica
from testbed.isr.settings import Settings


def test_while_its_log_diverges_a_follower_takes_no_high_watermark() -> None:
    """What is left when it has cut off what cannot be the leader's need not be the leader's either."""
    nothing = Stored.nothing()
    stored = Stored(0, None, nothing.snapshot, tuple(Entry(index, epoch, index) for index, epoch in ((1, 1), (2, 3))))
    partition = Partition(("a", "b"), isr=("a",), leader="a", epoch=4, version=9)
    replica = Replica("b", 0, stored, Partition(("a", "b"), isr=("a", "b")), Settings())
    replica.take(partition, ["a", "b"], may_lead=True, now_s=1.0)
    replica.receive(FetchReply("a", 0, 4, 1, True, high_watermark=2, diverging=(2, 2)), 2.0)
    assert (replica.log.last_index, replica.high_watermark, replica.applied_index) == (1, 0, 0)
    replica.receive(FetchReply("a", 0, 4, 2, True, high_watermark=2, diverging=(0, 0)), 3.0)
    replica.receive(FetchReply("a", 0, 4, 3, True, (Entry(1, 2, "x"), Entry(2, 2, "y")), high_watermark=2), 4.0)
    assert (replica.log.last_index, replica.high_watermark, replica.applied_index) == (2, 2, 2)


REFUSED = NotAcknowledged("read", Problem.NOT_LEADER)


def reads(replica: Replica) -> Any:
    (output,) = replica.read("read", 9.0)
    return output


def test_a_follower_in_sync_answers_reads_with_what_it_knows_that_all_in_sync_have() -> None:
    at_first = Partition(("a", "b"), isr=("a", "b"))
    replica = Replica("b", 0, Stored.nothing(), at_first, Settings(follower_reads=True))
    assert reads(replica) == REFUSED  # nobody has told it yet who is in sync
    in_sync = Partition(("a", "b"), isr=("a", "b"), leader="a", epoch=1, version=1)
    replica.take(in_sync, ["a", "b"], may_lead=True, now_s=1.0)
    replica.receive(FetchReply("a", 0, 1, 1, True, (Entry(1, 1, "x"), Entry(2, 1, "y")), high_watermark=1), 2.0)
    assert (reads(replica), replica.applied_index) == (ReadReady("read"), 1)
    replica.take(Partition(("a", "b"), isr=("a",), leader="a", epoch=1, version=2), ["a"], may_lead=True, now_s=3.0)
    assert reads(replica) == REFUSED


@pytest.mark.parametrize("leader", ["a", None])
def test_a_follower_answers_no_reads_unless_that_is_set(leader: str | None) -> None:
    replica = Replica("b", 0, Stored.nothing(), Partition(("a", "b"), isr=("a", "b")), Settings())
    told = Partition(("a", "b"), isr=("a", "b"), leader=leader, epoch=1, version=1)
    replica.take(told, ["a", "b"], may_lead=True, now_s=1.0)
    assert reads(replica) == REFUSED
