"""A directed link alone, given the time: when things arrive whatever changes meanwhile, and what is measured."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.network.directed_link import Link, Queue, Transit
from testbed.objects.places import LinkQuality

ONE_MS = LinkQuality(delay_s=0.001)
FAR_S = 1e6
FAST_ONCE = LinkQuality(delay_s=0.001, bandwidth_bits_per_s=1e6)
SLACK_S = 1e-9
"""Of floating point."""


@dataclass(eq=False)
class Stream:
    """One connection; `arrived` has the time and the bytes of each arrival."""

    link: Link
    arrived: list[tuple[float, bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.queue = Queue(self.link)
        self.link.traffic[self] = None

    def retimed(self) -> None:
        pass

    def close(self, *, reset: bool = False) -> None:
        pass

    def send(self, payload: bytes, now: float) -> None:
        self.queue.send(payload, len(payload), now)

    def advance(self, now: float) -> None:
        while self.queue and self.queue.due_s <= now:
            transit = self.queue.pop()
            assert not callable(transit.payload)
            self.arrived.append((transit.due_s, bytes(transit.payload)))

    def arrival_s(self, now: float) -> float:
        """When the last byte that is under way arrives."""
        self.advance(now)
        before = len(self.arrived)
        self.advance(FAR_S)
        return self.arrived[-1][0] if len(self.arrived) > before else now


def make_link(quality: LinkQuality = ONE_MS, seed: int = 1) -> Link:
    return Link("here", "there", quality, Random(seed))


def transit(sent_s: float, due_s: float) -> Transit:
    return Transit(b"x", 1, sent_s, None, 0, due_s=due_s)


class LinedUp(Stream):
    """Whose payloads all go the general way, which knows of bandwidth, jitter and loss."""

    def send(self, payload: bytes, now: float) -> None:
        transit = Transit(payload, len(payload), now, None, next(self.link.numbers))
        self.queue.line_up(transit, now, len(payload))


delays_s = st.sampled_from([0.0, 0.001, 0.005])
steps = st.one_of(
    st.tuples(st.just("send"), st.integers(1, 5000)),
    st.tuples(st.just("wait"), st.floats(0, 0.01)),
    st.tuples(st.just("underlay"), delays_s),
    st.tuples(st.just("change"), st.builds(LinkQuality, delay_s=delays_s, cut=st.booleans())),
    st.tuples(st.just("change"), st.just(FAST_ONCE)),
)


@given(st.lists(steps, max_size=40))
def test_where_only_the_delay_counts_things_arrive_as_they_do_by_the_general_way(script: list[tuple[str, Any]]) -> None:
    streams = [kind(make_link()) for kind in (Stream, LinedUp)]
    now = 1.0
    for what, value in [*script, ("change", ONE_MS)]:
        for stream in streams:
            stream.advance(now)
            if what == "send":
                stream.send(bytes(value), now)
            elif what == "underlay":
                stream.link.underlay_s = value
            elif what == "change":
                stream.link.change(value, now)
        now += value if what == "wait" else 0.0
    for stream in streams:
        stream.advance(FAR_S)
        assert stream.queue.due_s == math.inf
        assert stream.queue.bytes == 0
    fast, general = (stream.arrived for stream in streams)
    assert fast == general


# --- changes -------------------------------------------------------------------------------------------------------

MEGABYTE = bytes(1_000_000)
FAST = LinkQuality(delay_s=0.001, bandwidth_bits_per_s=100e6)
SLOW = replace(FAST, bandwidth_bits_per_s=100e3)


def test_a_full_window_that_a_slow_link_held_back_leaves_at_full_speed_when_it_is_healed() -> None:
    link = make_link(FAST)
    stream = Stream(link)
    link.change(SLOW, 1.0)
    stream.send(MEGABYTE, 1.0)
    stream.advance(2.0)
    assert sum(len(data) for _, data in stream.arrived) == pytest.approx(100e3 / 8, rel=0.2)
    link.change(FAST, 2.0)
    stream.advance(3.0)
    assert b"".join(data for _, data in stream.arrived) == MEGABYTE
    first_after_s = next(at_s for at_s, _ in stream.arrived if at_s > 2.0)
    assert first_after_s == pytest.approx(2.0 + 0.001, abs=0.0055)  # its own 5 ms slice
    assert stream.arrived[-1][0] == pytest.approx(2.0 + 0.001 + (1e6 - 12.5e3) * 8 / 100e6, rel=0.01)


def test_what_has_not_left_goes_at_the_pace_of_a_link_that_is_degraded_meanwhile() -> None:
    link = make_link(FAST)
    stream = Stream(link)
    stream.send(MEGABYTE, 1.0)
    link.change(SLOW, 1.04)  # half of it has left
    stream.advance(2.04)
    later = [(at_s, len(data)) for at_s, data in stream.arrived if at_s > 1.05]
    assert sum(size for _, size in later) == pytest.approx(100e3 / 8, rel=0.2)
    # In small pieces, not in one as large as the fast link would have carried in 5 ms.
    assert max(size for _, size in later[1:]) <= 1448


def test_a_byte_under_way_keeps_its_time_on_a_link_that_gets_slower() -> None:
    link = make_link(LinkQuality(delay_s=0.01))
    stream = Stream(link)
    stream.send(b"x", 1.0)
    link.change(LinkQuality(delay_s=0.5), 1.005)
    assert stream.arrival_s(1.005) == pytest.approx(1.01)


def test_latency_that_is_lifted_does_not_hold_what_is_under_way() -> None:
    link = make_link(LinkQuality(delay_s=5.0))
    stream = Stream(link)
    stream.send(b"x", 1.0)
    link.change(ONE_MS, 2.0)
    assert stream.arrival_s(2.0) == pytest.approx(2.001)


def test_a_retransmission_that_waits_does_not_outlast_the_loss() -> None:
    link = make_link(LinkQuality(delay_s=0.001, loss=1.0))
    stream = Stream(link)
    stream.send(b"x", 1.0)
    assert stream.queue.due_s > 60
    link.change(ONE_MS, 2.0)
    assert stream.arrival_s(2.0) == pytest.approx(2.001)


def test_a_change_of_something_else_does_not_roll_the_dice_of_loss_anew() -> None:
    lossy = LinkQuality(delay_s=0.001, loss=0.5)
    link = make_link(lossy, seed=3)
    streams = [Stream(link) for _ in range(50)]
    for stream in streams:
        stream.send(b"x", 1.0)
    before = [stream.queue.due_s for stream in streams]
    link.change(replace(lossy, jitter_s=1e-9), 1.0)
    assert [stream.queue.due_s for stream in streams] == pytest.approx(before)


def test_lost_transmissions_are_counted_as_often_as_the_loss_makes_them() -> None:
    link = make_link(LinkQuality(loss=0.2))
    for _ in range(5000):
        Stream(link).send(b"x", 1.0)
    sample = link.take_sample(1)
    assert sample is not None
    assert sample.dropped == pytest.approx(5000 * (0.2 / 0.8), rel=0.1)


def test_connections_that_a_cut_held_back_share_the_link_when_it_ends() -> None:
    link = make_link(FAST)
    first, second = Stream(link), Stream(link)
    link.change(replace(FAST, cut=True), 1.0)
    for number in range(10):
        first.send(bytes(10_000), 1.0 + number / 100)
        second.send(bytes(10_000), 1.0 + number / 100)
    assert first.queue.due_s == math.inf
    link.change(FAST, 2.0)
    whole_s = 200_000 * 8 / 100e6
    assert first.arrival_s(2.0) == pytest.approx(2.001 + whole_s, rel=0.001)
    assert second.arrival_s(2.0) == pytest.approx(2.001 + whole_s, rel=0.001)


qualities = st.builds(
    LinkQuality,
    delay_s=st.sampled_from([0.0, 0.001, 0.05, 3.0]),
    jitter_s=st.sampled_from([0.0, 0.002]),
    bandwidth_bits_per_s=st.sampled_from([None, 20e3, 1e6, 100e6]),
    loss=st.sampled_from([0.0, 0.1, 0.9]),
    cut=st.booleans(),
)
healed_links = st.builds(
    LinkQuality,
    delay_s=st.sampled_from([0.0, 0.001, 0.05]),
    bandwidth_bits_per_s=st.sampled_from([None, 1e6, 100e6]),
)
steps = st.tuples(
    st.floats(0, 2),
    qualities | st.tuples(st.integers(0, 2), st.sampled_from([1, 100, 20_000, 200_000])),
)


@settings(deadline=None)
@given(st.lists(steps, max_size=20), healed_links)
def test_after_a_heal_everything_arrives_in_order_and_no_later_than_if_it_were_sent_then(
    history: list[tuple[float, LinkQuality | tuple[int, int]]], healed: LinkQuality
) -> None:
    link = make_link(healed)
    streams = [Stream(link) for _ in range(3)]
    sent = [bytearray() for _ in streams]
    now = 1.0
    for wait_s, step in history:
        now += wait_s
        for stream in streams:
            stream.advance(now)
        if isinstance(step, LinkQuality):
            link.change(step, now)
        else:
            number, size = step
            payload = bytes((len(sent[number]) + i) % 251 for i in range(size))
            sent[number] += payload
            streams[number].send(payload, now)
    now += 0.5
    for stream in streams:
        stream.advance(now)
    waiting_bytes = sum(map(len, sent)) - sum(len(data) for stream in streams for _, data in stream.arrived)
    link.change(healed, now)

    # Independent of the code: all that waits is sent at once over an idle link.
    rate = math.inf if healed.bandwidth_bits_per_s is None else healed.bandwidth_bits_per_s / 8
    at_the_latest_s = now + waiting_bytes / rate + healed.delay_s
    for stream, all_of_it in zip(streams, sent, strict=True):
        assert stream.arrival_s(now) <= at_the_latest_s + SLACK_S
        assert b"".join(data for _, data in stream.arrived) == bytes(all_of_it)
        times_s = [at_s for at_s, _ in stream.arrived]
        assert times_s == sorted(times_s)
    link.change(healed, now + 60)
    streams[0].send(b"next", now + 60)
    assert streams[0].arrival_s(now + 60) == pytest.approx(now + 60 + 4 / rate + healed.delay_s)


# --- what is measured ----------------------------------------------------------------------------------------------


def test_a_link_whose_chunks_come_late_begins_earlier_up_to_a_bound() -> None:
    link = make_link()
    before_s = link.lead_s
    for _ in range(1000):
        link.record(transit(1.0, 1.001), 1.002)
    assert before_s < link.lead_s < 0.001


def test_a_link_whose_chunks_come_early_begins_later_and_never_after_they_are_due() -> None:
    link = make_link()
    for _ in range(1000):
        link.record(transit(1.0, 2.0), 1.0)
    assert link.lead_s == 0


def test_a_sample_has_the_time_from_sending_to_arrival() -> None:
    link = make_link()
    link.record(transit(1.0, 1.001), 1.25)
    sample = link.take_sample(second=7)
    assert sample is not None
    assert sample.achieved_p50_ms == pytest.approx(250)
    assert sample.expected_p50_ms == pytest.approx(1)


@pytest.mark.parametrize(
    ("quality", "sizes", "expected_ms"),
    [
        (ONE_MS, [1000], 1.0),
        (LinkQuality(delay_s=0.0005, bandwidth_bits_per_s=100e6), [62_500], 5.5),
        (LinkQuality(delay_s=0.0005, bandwidth_bits_per_s=100e6), [62_500] * 3, 10.5),  # the second waits for the first
        (LinkQuality(delay_s=0.01, loss=1.0), [1], 10 + 220 * (2**10 - 1) + 5 * 120_000),
    ],
)
def test_expected_is_what_the_declaration_makes_the_bytes_take(
    quality: LinkQuality, sizes: list[int], expected_ms: float
) -> None:
    link = make_link(quality)
    stream = Stream(link)
    for size in sizes:
        stream.send(bytes(size), 1.0)
    while stream.queue:
        link.record(stream.queue.pop(), 2.0)
    sample = link.take_sample(second=1)
    assert sample is not None
    assert sample.declared_ms == pytest.approx(quality.delay_s * 1e3)
    assert sample.expected_p50_ms == pytest.approx(expected_ms)


def test_what_the_network_below_takes_is_expected_only_up_to_what_is_declared() -> None:
    link = make_link()
    link.underlay_s = 0.004
    stream = Stream(link)
    stream.send(b"x", 1.0)
    link.record(stream.queue.pop(), 1.0)
    sample = link.take_sample(second=1)
    assert sample is not None
    assert (sample.expected_p50_ms, sample.achieved_p50_ms) == pytest.approx((1, 4))
