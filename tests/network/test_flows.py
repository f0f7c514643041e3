"""A directed link alone: what it learns from arrivals. What it does to bytes is tested through the relay."""

from __future__ import annotations

from random import Random
from time import monotonic

from testbed.control.topology import LinkQuality
from testbed.network.flows import Link


def make_link() -> Link:
    return Link("here", "there", LinkQuality(delay_s=0.001), Random(1))


def test_a_link_whose_chunks_come_late_begins_earlier_up_to_a_bound() -> None:
    link = make_link()
    before_s = link.lead_s
    for _ in range(1000):
        now = monotonic()
        link.record(now - 0.002, now - 0.001)
    assert before_s < link.lead_s < 0.001


def test_a_link_whose_chunks_come_early_begins_later_and_never_after_they_are_due() -> None:
    link = make_link()
    for _ in range(1000):
        now = monotonic()
        link.record(now, now + 1)
    assert link.lead_s == 0


def test_a_sample_has_the_time_from_sending_to_arrival() -> None:
    link = make_link()
    now = monotonic()
    link.record(now - 0.25, now)
    sample = link.take_sample(second=7)
    assert sample is not None
    assert 250 <= sample.achieved_p50_ms < 1000
