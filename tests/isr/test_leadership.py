"""What a leader makes of its followers' fetches, rule by rule."""

from __future__ import annotations

from testbed.consensus.log import Entry, Log
from testbed.consensus.storage import Stored
from testbed.isr.leadership import Leadership
from testbed.isr.messages import AlterPartition, Fetch
from testbed.isr.metadata import Partition
from testbed.isr.settings import Settings

ALONE = Partition(("a", "b"), isr=("a",), leader="a", epoch=3, version=7)


def leading(partition: Partition, *epochs: int) -> tuple[Leadership, Log]:
    log = Log(Stored.nothing().snapshot, [Entry(index, epoch, None) for index, epoch in enumerate(epochs, 1)])
    return Leadership("a", 0, partition, log, Settings(replica_lag_time_max_s=10.0), now_s=0.0), log


def fetch(last_index: int, last_epoch: int, number: int = 1) -> Fetch:
    return Fetch("b", 0, 3, number, last_index, last_epoch, high_watermark=0)


def test_nobody_is_in_sync_who_lacks_what_former_leaders_may_have_acknowledged() -> None:
    """KAFKA-7128: the new leader's high watermark may be older than that of the former."""
    leader, _ = leading(ALONE, 1, 1, 2, 2)
    leader.fetched(fetch(3, 2), 1.0)
    assert leader.request(3, ["a", "b"], 1.0) is None
    leader.fetched(fetch(4, 2), 2.0)
    assert leader.request(3, ["a", "b"], 2.0) == AlterPartition("a", 0, 3, 7, ("a", "b"))


def test_who_is_fenced_is_not_asked_for() -> None:
    leader, _ = leading(ALONE, 1)
    leader.fetched(fetch(1, 1), 1.0)
    assert leader.request(1, ["a"], 1.0) is None


def test_who_may_join_holds_the_high_watermark_back_before_it_is_decided() -> None:
    leader, log = leading(ALONE, 1)
    leader.fetched(fetch(1, 1), 1.0)
    assert leader.request(1, ["a", "b"], 1.0)
    log.put((Entry(2, 3, None),))
    assert leader.high_watermark(durable_index=2) == 1
    leader.take(ALONE)
    assert leader.high_watermark(durable_index=2) == 1, "news of other partitions settle nothing"
    leader.take(Partition(("a", "b"), isr=("a",), leader="a", epoch=3, version=8))
    assert leader.high_watermark(durable_index=2) == 2


def test_a_follower_that_does_not_catch_up_in_time_is_to_leave_but_one_that_has_everything_never_is() -> None:
    both = Partition(("a", "b"), isr=("a", "b"), leader="a", epoch=3, version=7)
    leader, log = leading(both, 1)
    leader.fetched(fetch(1, 1), 1.0)
    assert leader.request(1, ["a", "b"], 100.0) is None
    log.put((Entry(2, 3, None),))
    assert leader.request(1, ["a", "b"], 11.0) is None
    assert leader.request(1, ["a", "b"], 11.1) == AlterPartition("a", 0, 3, 7, ("a",))


def test_a_log_that_diverges_is_answered_with_where_it_may_agree_and_counts_for_nothing() -> None:
    leader, _ = leading(ALONE, 1, 1, 3)
    leader.fetched(fetch(4, 2), 1.0)
    ((to, reply),) = leader.replies(high_watermark=1, durable_index=3, now_s=1.0)
    assert (to, reply.diverging, reply.entries) == ("b", (2, 1), ())
    assert leader.lags() == {"b": 3}
    leader.fetched(fetch(2, 1, number=2), 2.0)
    ((_, reply),) = leader.replies(high_watermark=1, durable_index=3, now_s=2.0)
    assert (reply.diverging, [entry.index for entry in reply.entries]) == (None, [3])
    assert leader.lags() == {"b": 1}
