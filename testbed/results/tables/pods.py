"""Who was behind a pod name or an address, and where: the ends of hops and attempts."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from testbed.results.tables.columns import Codes, Floats, codes
from testbed.results.tables.schemas import PLACE_FIELDS, SCHEMAS


@dataclass(frozen=True, slots=True)
class PodIdentity:
    """One life of a pod; a row of the `pods` table. `ip` is `ip:port` where pods share the address of their machine."""

    pod: str
    service: str
    node: str
    zone: str
    region: str
    cell: str
    ip: str
    started_s: float

    def row(self) -> dict[str, Any]:
        return asdict(self)


class Pods:
    """Who was behind a pod name or an address. Answers are indices for `columns`, None (of many: -1) for a stranger."""

    def __init__(self, identities: Iterable[PodIdentity]) -> None:
        self.identities = sorted(identities, key=lambda identity: identity.started_s)
        self._by_name = {identity.pod: index for index, identity in enumerate(self.identities)}
        self._by_address: dict[str, list[int]] = {}
        for index, identity in enumerate(self.identities):
            self._by_address.setdefault(identity.ip, []).append(index)
        self._rows: list[dict[str, str]] = [
            {name: getattr(identity, name) for name in PLACE_FIELDS} for identity in self.identities
        ]
        self._some: dict[str, int] = {}
        self._places: pa.Table | None = None

    def named(self, pod: str | None) -> int | None:
        return None if pod is None else self._by_name.get(pod)

    def at(self, address: str | None, t_s: float) -> int | None:
        """The pod behind `ip:port` at that time; an address can pass from pod to pod."""
        lives = [] if address is None else self._lives(address)
        if not lives:
            return None
        return lives[max(0, bisect_right(lives, t_s, key=lambda index: self.identities[index].started_s) - 1)]

    def all_at(self, addresses: pa.ChunkedArray, t_s: Floats) -> Codes:
        """The same for many addresses, each at its time."""
        values, names = codes(addresses.dictionary_encode())
        found = np.full(len(values), -1, dtype=values.dtype)
        for code, address in enumerate(names):
            if lives := self._lives(address):
                here = values == code
                later = [self.identities[index].started_s for index in lives[1:]]
                found[here] = np.array(lives)[np.searchsorted(later, t_s[here], side="right")]
        return found

    def _lives(self, address: str) -> list[int]:
        return self._by_address.get(address) or self._by_address.get(address.rpartition(":")[0], [])

    def some(self, service: str | None) -> int | None:
        """No pod that anybody knows, but one of this service was meant."""
        if service is None:
            return None
        if service not in self._some:
            self._some[service] = len(self._rows)
            self._rows.append({"service": service})
            self._places = None
        return self._some[service]

    def columns(self, end: str, indices: Codes) -> dict[str, pa.Array]:
        """The six columns `<end>_pod` .. `<end>_cell`, one row for every index, null for -1."""
        if self._places is None:
            schema = pa.schema([SCHEMAS["pods"].field(name) for name in PLACE_FIELDS])
            self._places = pa.Table.from_pylist(self._rows, schema=schema).combine_chunks()
        places = self._places.take(pa.array(indices, mask=indices < 0))
        return {f"{end}_{name}": places.column(name).combine_chunks() for name in PLACE_FIELDS}
