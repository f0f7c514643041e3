"""The locality ledger: how far calls went, how many bytes they carried there and back, and what that cost.

Of calls as `calls_made` counts them, gateways' too. Each has a class in every dimension, such as its distance, which is
a function of its columns alone: a way more to class them is one more such function.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import pyarrow as pa

from testbed.objects.places import DISTANCES, Distance
from testbed.results.measure.phases import Phase
from testbed.results.tables.columns import Codes, Floats, Mask, codes, floats, same
from testbed.scenario import Prices

N = TypeVar("N", int, float)


@dataclass(frozen=True, slots=True)
class Traffic:
    """Calls, the bodies that they carried each way, and their price. Bytes and price are None where they are unknown:
    earlier versions did not record them."""

    calls: int = 0
    request_bytes: int | None = 0
    response_bytes: int | None = 0
    cost: float | None = 0.0

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(
            self.calls + other.calls,
            _sum(self.request_bytes, other.request_bytes),
            _sum(self.response_bytes, other.response_bytes),
            _sum(self.cost, other.cost),
        )

    @property
    def bytes(self) -> int | None:
        return _sum(self.request_bytes, self.response_bytes)


@dataclass(frozen=True, slots=True)
class PhaseLedger:
    """The calls that began in one phase. Distances are in order, the nearest first, those without calls left out."""

    all: Traffic = Traffic()
    cross_zone: Traffic = Traffic()
    by_distance: dict[Distance, Traffic] = field(default_factory=dict)
    by_service: dict[str, dict[Distance, Traffic]] = field(default_factory=dict)
    """By the service that called."""


def crossing_zones(parts: Mapping[Distance, Traffic]) -> Traffic:
    """What left its zone."""
    return sum((parts[each] for each in parts if each not in ("same_node", "same_zone")), Traffic())


def distances(calls: pa.Table, cities: Mapping[str, str]) -> Codes:
    """How far each call went, as its number in DISTANCES. `cities` are those of zones; a zone without one belongs to
    the rest of its region."""
    zones = [codes(calls[f"{end}_zone"]) for end in ("source", "destination")]
    in_cities = [(zone, [cities.get(name, "") for name in names]) for zone, names in zones]
    one_node = same(*(codes(calls[f"{end}_node"]) for end in ("source", "destination")))
    one_region = same(*(codes(calls[f"{end}_region"]) for end in ("source", "destination")))
    one_city = one_region & (same(*in_cities) if cities else np.zeros(len(calls), dtype=np.bool_))
    found = [one_node, same(*zones), one_city, one_region]
    return np.select(found, range(len(found)), default=len(DISTANCES) - 1).astype(np.int64)


class Ledger:
    """The calls of a run, classed and priced, ready to be summed up by phase."""

    def __init__(self, calls: pa.Table, cities: Mapping[str, str], prices: Prices) -> None:
        self._start_s = floats(calls["start_s"])
        self._service, self._services = codes(calls["source_service"])
        self._distance = distances(calls, cities)
        self._request_bytes, self._response_bytes = floats(calls["request_bytes"]), floats(calls["response_bytes"])
        per_byte = np.array([prices.at(distance).per_byte for distance in DISTANCES])
        self._cost = (self._request_bytes + self._response_bytes) * per_byte[self._distance]

    def within(self, phase: Phase) -> PhaseLedger:
        inside = (self._start_s >= phase.start_s) & (self._start_s < phase.end_s)
        parts = self._by_distance(inside)
        services = sorted((name, code) for code, name in enumerate(self._services))
        by_service = {name: self._by_distance(inside & (self._service == code)) for name, code in services}
        return PhaseLedger(
            sum(parts.values(), Traffic()),
            crossing_zones(parts),
            parts,
            {name: found for name, found in by_service.items() if found},
        )

    def _by_distance(self, chosen: Mask) -> dict[Distance, Traffic]:
        parts = ((distance, chosen & (self._distance == code)) for code, distance in enumerate(DISTANCES))
        return {distance: self._traffic(part) for distance, part in parts if part.any()}

    def _traffic(self, chosen: Mask) -> Traffic:
        carried = (self._request_bytes[chosen], self._response_bytes[chosen])
        request_bytes, response_bytes = (None if total is None else int(total) for total in map(_total, carried))
        return Traffic(int(chosen.sum()), request_bytes, response_bytes, _total(self._cost[chosen]))


def _sum(a: N | None, b: N | None) -> N | None:
    return None if a is None or b is None else a + b


def _total(values: Floats) -> float | None:
    total = float(values.sum())
    return None if np.isnan(total) else total
