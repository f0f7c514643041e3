"""What a relay says of its links, and whether a run with such links is to be believed."""

from __future__ import annotations

import time
from dataclasses import asdict

import pyarrow as pa
import pytest

from testbed.network.links import LinkSample
from testbed.objects.places import LinkQuality
from testbed.results.judge.validity import invalid_reasons
from testbed.results.measure.calls import Completeness
from testbed.results.tables.columns import Requests
from testbed.results.tables.facts import RunFacts
from testbed.results.tables.schemas import SCHEMAS
from tests.network.conftest import BOTH, Start, World, read_exactly, round_trips_s, wait_until

FACTS = RunFacts(
    name="r", seed=0, profile="fast", warmup_s=0.0, end_s=1.0, ready_s=1.0, sources=(), faults=(), locust={}
)


def reasons(samples: list[LinkSample]) -> tuple[str, ...]:
    """Why a run with these links would be invalid."""
    rows = [{**asdict(sample), "second_s": sample.second} for sample in samples]
    requests = SCHEMAS["requests"].empty_table()
    return invalid_reasons(
        FACTS,
        requests,
        Requests.of(requests),
        pa.Table.from_pylist(rows, schema=SCHEMAS["links"]),
        SCHEMAS["machines"].empty_table(),
        Completeness(0, 0),
    )


def samples_of(w: World) -> list[LinkSample]:
    w.relay.stop()
    return w.relay.drain_samples()


def test_samples_tell_declared_and_achieved_for_each_direction(world: Start) -> None:
    w = world(LinkQuality(delay_s=0.02))
    client, server = w.connect()
    round_trips_s(client, server, 20)
    client.sendall(bytes(1000))
    read_exactly(server, 1000)
    w.relay.stop()
    samples = w.relay.drain_samples()
    assert {(s.source, s.destination) for s in samples} == set(BOTH)
    for sample in samples:
        assert (sample.declared_ms, sample.expected_p50_ms) == pytest.approx((20, 20))
        assert sample.achieved_p50_ms > 19.9
        assert sample.achieved_p99_ms >= sample.achieved_p50_ms
    # A second with few chunks may have been one in which the machine was busy with something else.
    assert min(sample.achieved_p50_ms for sample in samples) < 40
    assert sum(s.bytes for s in samples if s.source == "a") == 1020
    assert sum(s.bytes for s in samples if s.source == "b") == 20
    assert w.relay.drain_samples() == []


def test_finished_seconds_can_be_drained_while_the_relay_runs(world: Start) -> None:
    w = world()
    client, server = w.connect()
    round_trips_s(client, server, 1)
    drained = []

    def forward_bytes() -> int:
        drained.extend(w.relay.drain_samples())
        return sum(s.bytes for s in drained if s.source == "a")

    wait_until(lambda: forward_bytes() == 1)


@pytest.mark.parametrize(
    "quality",
    [LinkQuality(delay_s=0.0005, bandwidth_bits_per_s=100e6), LinkQuality(delay_s=0.0005, jitter_s=0.02)],
    ids=["bandwidth", "jitter"],
)
def test_time_that_the_declaration_makes_bytes_take_is_not_held_against_a_run(
    world: Start, quality: LinkQuality
) -> None:
    w = world(quality)
    client, server = w.connect()

    def burst() -> list[LinkSample]:
        for _ in range(5):
            client.sendall(bytes(20_000))
        read_exactly(server, 100_000)
        samples: list[LinkSample] = []

        def sampled() -> bool:
            samples.extend(w.relay.drain_samples())
            return bool(samples)

        wait_until(sampled)
        return samples

    assert max(sample.expected_p50_ms for sample in burst()) > 1.5
    # On a machine that is busy with something else, some bursts really are late.
    wait_until(lambda: reasons(burst()) == ())


@pytest.mark.parametrize(
    "quality", [LinkQuality(delay_s=0.001), LinkQuality(delay_s=0.001, bandwidth_bits_per_s=100e6)]
)
def test_a_relay_that_is_really_late_makes_a_run_invalid(world: Start, quality: LinkQuality) -> None:
    w = world(quality)
    client, server = w.connect()
    loop = w.relay.thread.tasks.loop

    def hog() -> None:
        time.sleep(0.004)
        loop.call_soon(hog)

    loop.call_soon_threadsafe(hog)
    round_trips_s(client, server, 30)
    (reason,) = reasons(samples_of(w))
    assert reason.startswith("latency of 2 links is off")
