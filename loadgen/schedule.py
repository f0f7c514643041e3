"""When the open sources send, and what: a pure function of the settings."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import accumulate
from random import Random

from loadgen.settings import OpenSource, RequestTemplate, Settings


def schedule(settings: Settings) -> Iterator[tuple[float, RequestTemplate]]:
    """Offsets in seconds from the start, rising, with the request to send then; ends with the duration.

    Sources are independent of each other: each has a Random of its own, named by seed, origin zone and its index.
    """
    return heapq.merge(
        *(
            _source(source, settings, Random(f"{settings.seed_text}/{index}"))
            for index, source in enumerate(settings.open_sources)
        ),
        key=lambda arrival: arrival[0],
    )


def _source(source: OpenSource, settings: Settings, random: Random) -> Iterator[tuple[float, RequestTemplate]]:
    weights = list(accumulate(request.weight for request in settings.requests))
    arrivals = _poisson(source, random) if source.arrival == "poisson" else _constant(source, random)
    for offset_s in arrivals:
        if offset_s >= settings.duration_s:
            return
        yield offset_s, random.choices(settings.requests, cum_weights=weights)[0]


def _poisson(source: OpenSource, random: Random) -> Iterator[float]:
    offset_s = 0.0
    while True:
        offset_s += random.expovariate(source.rate_per_s)
        yield offset_s


def _constant(source: OpenSource, random: Random) -> Iterator[float]:
    """Even gaps from a random phase, so that sources of one rate, here and in other zones, do not beat together."""
    phase = random.random()
    count = 0
    while True:
        yield (count + phase) / source.rate_per_s
        count += 1
