"""Who may run the controllers, by client-go's rules."""

from __future__ import annotations

from random import Random

import pytest

from testbed.control.masters.lease import LeaseKeeper
from testbed.objects.timings import Timings

TIMINGS = Timings()


@pytest.mark.parametrize("seed", range(10))
def test_who_has_taken_it_renews_it_every_retry_period_from_then_on(seed: int) -> None:
    keeper = LeaseKeeper("a", TIMINGS, Random(seed))
    keeper.lead(0.0)
    for _ in range(3):
        now_s = keeper.next_deadline()
        lease = keeper.to_write(now_s)
        assert lease is not None
        assert lease.holder == "a"
        keeper.see(lease, now_s + 0.01)
        assert keeper.next_deadline() == now_s + TIMINGS.leader_elect_retry_period_s


@pytest.mark.parametrize("seed", range(10))
def test_another_takes_it_when_it_was_not_renewed_for_its_duration_and_not_before(seed: int) -> None:
    holder, other = (LeaseKeeper(name, TIMINGS, Random(f"{seed}/{name}")) for name in "ab")
    holder.lead(0.0)
    lease = holder.to_write(0.0)
    assert lease is not None
    other.see(lease, 0.0)
    other.lead(1.0)
    while (taken := other.to_write(other.next_deadline())) is None:
        assert other.next_deadline() < 2 * TIMINGS.leader_elect_lease_duration_s
    taken_s = other.next_deadline() - TIMINGS.leader_elect_retry_period_s
    late_s = taken_s - TIMINGS.leader_elect_lease_duration_s
    assert taken.holder == "b"
    assert 0.0 <= late_s <= 2.2 * TIMINGS.leader_elect_retry_period_s
