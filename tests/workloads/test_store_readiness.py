"""When a replica of a store takes requests of clients."""

from __future__ import annotations

from testbed.workloads.store.readiness import Readiness


def test_a_replica_that_waits_for_nobody_is_ready_with_the_first_leader_and_stays_so() -> None:
    readiness = Readiness(None, 3.0)
    readiness.leads(None, 1.0)
    assert not readiness.at(1.0)
    readiness.leads("a", 2.0)
    assert readiness.at(2.0)
    readiness.leads(None, 3.0)
    assert readiness.at(3.0)


def test_who_is_to_lead_is_waited_for() -> None:
    readiness = Readiness("b", 3.0)
    readiness.leads("a", 1.0)
    assert not readiness.at(2.0)
    readiness.leads("b", 2.0)
    assert readiness.at(2.0)


def test_who_does_not_come_is_waited_for_as_long_as_patience_lasts_from_the_first_leader_on() -> None:
    readiness = Readiness("b", 3.0)
    readiness.leads("a", 1.0)
    readiness.leads(None, 2.0)
    readiness.leads("c", 3.0)
    assert not readiness.at(3.9)
    assert readiness.at(4.0)
