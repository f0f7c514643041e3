"""The locality ledger: how far calls went, by which right, how many bytes they carried there and back, and what that
cost.

Of calls as `calls_made` counts them, gateways' too. Each has a class in every dimension, its distance and its right,
which is a function of its columns alone: a way more to class them is one more such function.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import pyarrow as pa

from testbed.objects.places import DISTANCES, Distance
from testbed.results.measure.phases import Phase
from testbed.results.measure.rights import RIGHTS, CrossCellRules, Right, rights, rule_of
from testbed.results.tables.columns import Codes, Floats, Mask, codes, floats, same
from testbed.scenario import Prices

N = TypeVar("N", int, float)


@dataclass(frozen=True, slots=True)
class Traffic:
    """Calls, the HTTP messages that they carried each way, and their price. Bytes and price are None where they are
    unknown: earlier versions did not record them."""

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
class Account:
    """Some calls. Classes are in order, the nearest distance first, and those without calls left out; rights are there
    where there are cells."""

    all: Traffic = Traffic()
    cross_zone: Traffic = Traffic()
    by_distance: dict[Distance, Traffic] = field(default_factory=dict)
    by_right: dict[Right, Traffic] = field(default_factory=dict)

    @property
    def between_pods(self) -> int:
        """Calls in a cluster with cells, without those of gateways that went where they were to go."""
        return sum(traffic.calls for right, traffic in self.by_right.items() if right != "entry")

    @property
    def own_share(self) -> float | None:
        """Of those: what reached the cell that owns the partition, and left no other for it."""
        return self.by_right.get("own", Traffic()).calls / self.between_pods if self.between_pods else None


@dataclass(frozen=True, slots=True)
class PhaseLedger(Account):
    """The calls that began in one phase."""

    by_service: dict[str, Account] = field(default_factory=dict)
    """By the service that called."""
    by_cell: dict[str, Account] = field(default_factory=dict)
    """By the cell that called, without what came from outside of all cells."""
    partition_local_share: float | None = None
    """`own_share` of all, None without cells."""
    partition_local_share_by_service: dict[str, float] = field(default_factory=dict)
    """By the service that was called."""
    by_rule: dict[str, Account] = field(default_factory=dict)
    """Declared calls from cell to cell, by the name of the rule."""
    bodies_cost: float | None = 0.0
    """What of the cost is for bodies, without headers."""


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

    def __init__(
        self,
        calls: pa.Table,
        prices: Prices,
        cities: Mapping[str, str] = {},
        backups: Mapping[str, str] = {},
        cross_cell: CrossCellRules | None = None,
        lent: Mapping[int, Sequence[int]] = {},
    ) -> None:
        """`cities` are those of zones, `backups` those of cells; see `distances` and `rights`, for rules as well."""
        self._start_s = floats(calls["start_s"])
        self._service, self._called, self._cell = (
            codes(calls[column]) for column in ("source_service", "destination_service", "source_cell")
        )
        self._distance, self._right = distances(calls, cities), rights(calls, backups, cross_cell, lent)
        rule, rules = rule_of(calls, cross_cell or {})
        self._rule: tuple[Codes, list[str]] = np.where(self._right == RIGHTS.index("declared"), rule, -1), rules
        request_bytes, response_bytes = floats(calls["request_bytes"]), floats(calls["response_bytes"])
        per_byte = np.array([prices.at(distance).per_byte for distance in DISTANCES])
        cost = (request_bytes + response_bytes) * per_byte[self._distance]
        self._bodies_cost = floats(calls["bytes"]) * per_byte[self._distance]
        self._figures = (np.ones(len(calls)), request_bytes, response_bytes, cost)

    def within(self, phase: Phase) -> PhaseLedger:
        inside = (self._start_s >= phase.start_s) & (self._start_s < phase.end_s)
        by_service, by_cell, by_called, by_rule = (
            self._sums(each, inside) for each in (self._service, self._cell, self._called, self._rule)
        )
        whole, bodies_cost = _account(by_service.sum(axis=0)), float(self._bodies_cost[inside].sum())
        to_service = _accounts(self._called[1], by_called)
        shares = {name: share for name, account in to_service.items() if (share := account.own_share) is not None}
        return PhaseLedger(
            whole.all,
            whole.cross_zone,
            whole.by_distance,
            whole.by_right,
            _accounts(self._service[1], by_service),
            {name: account for name, account in _accounts(self._cell[1], by_cell).items() if name},
            whole.own_share,
            shares,
            _accounts(self._rule[1], by_rule),
            None if np.isnan(bodies_cost) else bodies_cost,
        )

    def _sums(self, group: tuple[Codes, list[str]], inside: Mask) -> Floats:
        """Calls and what they carried, by group, distance and right. What is in none of these comes last."""
        shape = (len(group[1]) + 1, len(DISTANCES), len(RIGHTS) + 1)
        classes = (group[0], self._distance, self._right)
        place = np.ravel_multi_index([each[inside] % size for each, size in zip(classes, shape, strict=True)], shape)
        sums = [np.bincount(place, each[inside], minlength=int(np.prod(shape))) for each in self._figures]
        figures: Floats = np.stack(sums, axis=-1, dtype=np.float64).reshape(*shape, len(sums))
        return figures


def _accounts(names: Sequence[str], sums: Floats) -> dict[str, Account]:
    """Of the groups with these names, in the order of these."""
    accounts = {names[number]: _account(sums[number]) for number in sorted(range(len(names)), key=names.__getitem__)}
    return {name: account for name, account in accounts.items() if account.all.calls}


def _account(sums: Floats) -> Account:
    """`sums` by distance and right."""
    by_distance = {name: _traffic(part) for name, part in zip(DISTANCES, sums.sum(axis=1), strict=True) if part[0]}
    by_right = {name: _traffic(part) for name, part in zip(RIGHTS, sums.sum(axis=0)[:-1], strict=True) if part[0]}
    crossing = (traffic for distance, traffic in by_distance.items() if distance not in ("same_node", "same_zone"))
    return Account(sum(by_distance.values(), Traffic()), sum(crossing, Traffic()), by_distance, by_right)


def _traffic(sums: Floats) -> Traffic:
    calls, request_bytes, response_bytes, cost = (None if np.isnan(each) else float(each) for each in sums)
    assert calls is not None
    return Traffic(int(calls), _whole(request_bytes), _whole(response_bytes), cost)


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _sum(a: N | None, b: N | None) -> N | None:
    return None if a is None or b is None else a + b
