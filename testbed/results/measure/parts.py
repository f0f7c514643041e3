"""Requests by what they have in common: the zone of their client, the service they are for, the cell they belong to.

Owns which request is of which service and cell.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from testbed.objects.workloads import GATEWAY
from testbed.results.tables.columns import Codes, Mask, codes
from testbed.results.tables.facts import RunFacts

By = Literal["origin", "service", "cell", "name"]
BY: tuple[By, ...] = get_args(By)
OF_RECOVERY: tuple[By, ...] = ("origin", "service", "cell")
"""By what recovery is always measured."""


@dataclass(frozen=True, slots=True)
class Parts:
    """For each request the number of its name, -1 for none."""

    numbers: Codes
    names: Sequence[str]

    def masks(self) -> Iterator[tuple[str, Mask]]:
        """Every part that has requests, in the order of their names."""
        found = np.unique(self.numbers[self.numbers >= 0]).tolist()
        for number in sorted(found, key=self.names.__getitem__):
            yield self.names[number], self.numbers == number


def divided(by: By, table: pa.Table, hops: pa.Table, facts: RunFacts) -> Parts:
    """The rows of `requests` by one thing.

    - service: to which the first route whose prefix its path has leads; none for what left the cluster.
    - cell: which owns the partition, as the gateway says that routed it. What never reached a gateway is of no cell.
    """
    match by:
        case "origin":
            return Parts(*codes(table["origin_zone"]))
        case "name":
            return Parts(*codes(table["name"]))
        case "service":
            return _by_service(table, facts)
        case "cell":
            return _by_cell(table, hops)


def _by_service(table: pa.Table, facts: RunFacts) -> Parts:
    names = list(dict.fromkeys(service for _, service in facts.routes))
    numbers = np.full(len(table), -1, dtype=np.int64)
    if not facts.has_routes_by_path:
        numbers[codes(table["entry_zone"])[0] >= 0] = 0 if names else -1
        return Parts(numbers, names)
    for prefix, service in reversed(facts.routes):
        taken = pc.fill_null(pc.starts_with(table["path"], prefix), False).to_numpy()
        numbers[taken] = names.index(service)
    return Parts(numbers, names)


def _by_cell(table: pa.Table, hops: pa.Table) -> Parts:
    at_gateway = pc.and_(pc.equal(hops["source_service"], GATEWAY), pc.equal(hops["direction"], "outbound"))
    routed = hops.filter(pc.fill_null(pc.and_(at_gateway, pc.is_valid(hops["owner_cell"])), False))
    owner, names = codes(routed["owner_cell"])
    if not len(routed):
        return Parts(np.full(len(table), -1, dtype=np.int64), [])
    row = pc.fill_null(pc.index_in(table["request_id"], value_set=routed["request_id"]), -1).to_numpy()
    return Parts(np.where(row >= 0, owner[row], -1), names)


def combined(parts: Sequence[Parts]) -> Parts:
    """One part for every combination that there is, named `a, b`; none for a request that lacks one of them."""
    numbers, names = parts[0].numbers, list(parts[0].names)
    for more in parts[1:]:
        size = max(len(more.names), 1)
        known = (numbers >= 0) & (more.numbers >= 0)
        both = np.where(known, numbers * size + more.numbers, -1)
        numbers, names = both, [f"{name}, {other}" for name in names for other in more.names or [""]]
    return Parts(numbers, names)
