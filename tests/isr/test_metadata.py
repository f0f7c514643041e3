"""What the controller decides, rule by rule."""

from __future__ import annotations

from dataclasses import replace

import pytest

from testbed.isr.controller import Controller
from testbed.isr.messages import AlterPartition, BrokerHeartbeat
from testbed.isr.metadata import Cluster, Partition, altered, fenced, read_replica, rebalanced, registered
from testbed.isr.settings import Settings

ALIVE = (("a", "a1"), ("b", "b1"), ("c", "c1"), ("d", "d1"))
LED = Partition(("a", "b", "c"), isr=("a", "b"), leader="a", epoch=3, version=7)
CLUSTER = Cluster((LED,), ALIVE, version=20)


def only(cluster: Cluster) -> Partition:
    (partition,) = cluster.partitions
    return partition


def test_who_is_fenced_leaves_the_isr_and_another_of_it_leads() -> None:
    after = fenced(CLUSTER, "a", unclean=False)
    assert only(after) == Partition(("a", "b", "c"), isr=("b",), leader="b", epoch=4, version=8)
    assert after.brokers_alive == ["b", "c", "d"]


def test_a_follower_that_is_fenced_leaves_the_epoch_as_it_is() -> None:
    assert only(fenced(CLUSTER, "b", unclean=False)) == replace(LED, isr=("a",), version=8)
    assert only(fenced(CLUSTER, "d", unclean=False)) == LED


def test_the_last_in_sync_is_waited_for() -> None:
    nobody = fenced(fenced(CLUSTER, "b", unclean=False), "a", unclean=False)
    assert only(nobody) == Partition(("a", "b", "c"), isr=("a",), leader=None, epoch=4, version=9)
    assert only(registered(nobody, "b", "b2", unclean=False)) == only(nobody)
    back = registered(nobody, "a", "a2", unclean=False)
    assert only(back) == Partition(("a", "b", "c"), isr=("a",), leader="a", epoch=5, version=10)


def test_an_unclean_election_takes_the_first_that_is_alive_and_forgets_the_others() -> None:
    after = fenced(fenced(CLUSTER, "b", unclean=True), "a", unclean=True)
    assert only(after) == Partition(("a", "b", "c"), isr=("c",), leader="c", epoch=4, version=9)


def test_the_first_replica_leads_again_once_it_is_in_sync() -> None:
    led_by_b = replace(CLUSTER, partitions=(replace(LED, leader="b"),))
    assert only(rebalanced(led_by_b)) == replace(LED, leader="a", epoch=4, version=8)
    without_a = replace(CLUSTER, partitions=(replace(LED, leader="b", isr=("b", "c")),))
    assert rebalanced(without_a) == without_a
    assert rebalanced(CLUSTER) == CLUSTER


@pytest.mark.parametrize(
    "request_",
    [
        AlterPartition("b", 0, 3, 7, ("a", "b", "c")),
        AlterPartition("a", 0, 2, 7, ("a", "b", "c")),
        AlterPartition("a", 0, 3, 6, ("a", "b", "c")),
    ],
    ids=["of another than the leader", "of an older epoch", "of an older version"],
)
def test_an_isr_is_not_changed_by_a_request(request_: AlterPartition) -> None:
    assert altered(CLUSTER, request_) is CLUSTER


def test_an_isr_is_what_its_leader_asks_for_but_nobody_fenced_joins() -> None:
    request = AlterPartition("a", 0, 3, 7, ("a", "b", "c"))
    assert only(altered(CLUSTER, request)) == replace(LED, isr=("a", "b", "c"), version=8)
    without_c = replace(CLUSTER, alive=ALIVE[:2])
    assert altered(without_c, request) is without_c


def test_a_new_controller_gives_everybody_a_whole_session() -> None:
    controller = Controller(CLUSTER, Settings(broker_session_timeout_s=9.0), now_s=100.0)
    controller.hear(BrokerHeartbeat("b", "b1"), CLUSTER, 105.0)
    assert controller.next_cluster(CLUSTER, 108.9) is None
    assert controller.next_deadline(CLUSTER) == 109.0
    after = controller.next_cluster(CLUSTER, 109.0)
    assert after
    assert after.alive == (("b", "b1"),)
    assert only(after).leader == "b"


def test_another_incarnation_is_registered_once_the_session_of_the_first_has_expired() -> None:
    controller = Controller(CLUSTER, Settings(broker_session_timeout_s=9.0), now_s=100.0)
    for at_s in (104.0, 108.0, 112.0):
        for name in "bcd":
            controller.hear(BrokerHeartbeat(name, f"{name}1"), CLUSTER, at_s)
        controller.hear(BrokerHeartbeat("a", "a2"), CLUSTER, at_s)
        if at_s < 109.0:
            assert controller.next_cluster(CLUSTER, at_s) is None
    fenced_ = controller.next_cluster(CLUSTER, 112.0)
    assert fenced_
    assert "a" not in fenced_.brokers_alive
    controller.hear(BrokerHeartbeat("a", "a2"), fenced_, 113.0)
    registered_ = controller.next_cluster(fenced_, 113.0)
    assert registered_
    assert ("a", "a2") in registered_.alive


@pytest.mark.parametrize(
    ("asked", "isr", "answers"),
    [
        ("b", "abc", "b"),  # in sync, and nobody is nearer
        ("b", "ac", "a"),  # not in sync: the leader
        ("d", "abc", "b"),  # has nothing of it, but one beside it has
        ("e", "abc", "a"),  # the leader is beside it
        ("f", "abc", "a"),  # nobody is beside it
        ("b", "", None),  # nobody leads
    ],
)
def test_reads_go_to_who_is_in_sync_in_the_same_rack(asked: str, isr: str, answers: str | None) -> None:
    racks = {"a": "1", "b": "2", "c": "3", "d": "2", "e": "1", "f": "4"}
    partition = Partition(("a", "b", "c"), isr=tuple(isr or "b"), leader="a" if isr else None)
    assert read_replica(partition, asked, racks) == answers
