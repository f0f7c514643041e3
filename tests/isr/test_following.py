"""What a follower makes of its leader's answers."""

from __future__ import annotations

from testbed.consensus.log import Entry
from testbed.consensus.storage import Stored
from testbed.isr.messages import FetchReply
from testbed.isr.metadata import Partition
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
