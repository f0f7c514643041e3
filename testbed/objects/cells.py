"""Cells: which part of all requests is whose, and where. Ant's LDC calls a cell a unit, and its sharded kind RZone.

A request carries a key, a rule makes a partition of it, and the map says which cell owns the partition. What follows
for calls is `control.views.envoy.cells`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from testbed.objects.metadata import DEFAULT_NAMESPACE, Labels

ServiceClass = Literal["sharded", "global", "perCity"]
"""`sharded`: a Deployment for each cell, which serves what the cell owns (RZone). `global`: one for all (GZone).
`perCity`: one for each city (CZone)."""

CELL: Final = "testbed/cell"
GROUP: Final = "testbed/group"
CITY: Final = "testbed/city"
WORKER: Final = "testbed/worker"
"""Labels of pods: the cell that they belong to, its deployment group, the city that they serve, or their number among
the workers of shuffle shards."""

ENTRY_PARTITION_HEADER: Final = "x-testbed-partition"
"""Of answers to clients: the partition that was made of the request's key, by the gateway, or by a store."""

Layer = Literal["gateways", "sidecars"]
"""Of the proxies that go by the map: those at which requests enter (with routers), and those of pods."""

EntryMode = Literal["gateway", "directed"]
"""How requests find the cell that owns them. `gateway`: the client goes to the nearest gateway, which leads on by a
cookie or the key. `directed`: it asks a router once, keeps the answer, and goes to a gateway of its cell."""

REFUSE: Final = "refuse"
NEAREST: Final = "nearest"


@dataclass(frozen=True, slots=True)
class PartitionKey:
    """Where a request that enters carries the id: in a header, a cookie, a query parameter, or a part of its path."""

    kind: Literal["header", "cookie", "query", "path"]
    name: str
    """Of header, cookie or parameter; for a path a regular expression of all of it, whose one group is the id."""

    @property
    def header(self) -> str:
        """The header that carries it from the gateway on. Applications pass it on; their own paths are others'."""
        return self.name.lower() if self.kind == "header" else "x-partition-key"


@dataclass(frozen=True, slots=True)
class PartitionRule:
    """How an id becomes a partition. All but `hash` take decimal ids only, and nothing else is a key to them."""

    kind: Literal["digits", "modulo", "hash", "ranges"]
    digits: tuple[int, ...] = ()
    """Which digits of the id, from the most significant of the partition on; 1 is the last one. LDC: (3, 2)."""
    bounds: tuple[int, ...] = ()
    """The first id of each partition, rising."""


@dataclass(frozen=True, slots=True)
class DeploymentGroup:
    """Blue or green, A or B: pods of a cell that take `weight` percent of its calls."""

    name: str
    weight: int


@dataclass(frozen=True, slots=True)
class Cell:
    name: str
    zones: tuple[str, ...]
    groups: tuple[DeploymentGroup, ...] = ()
    """None: all pods of the cell are alike."""
    backup: str | None = None
    """The cell that takes over what it owns."""
    elastic: bool = False
    """It owns nothing until it is used."""


@dataclass(frozen=True, slots=True)
class City:
    """Zones close to each other, with one copy of what is `perCity`."""

    name: str
    zones: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ShuffleShards:
    """Each partition is served by `size` of the `workers` that a service has in its cell, drawn from the seed: few
    partitions have all workers in common, so that a client who brings down its own takes few others with it."""

    service: str
    workers: int
    size: int
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Rollout:
    """Of a map that only one layer of proxies is to go by yet: all others go by the previous one."""

    layer: Layer
    previous: PartitionMap


@dataclass(frozen=True, slots=True)
class PartitionMap:
    """Who owns what, in one version, and what happens to who asks the wrong one.

    `owners[p]` is the cell that owns partition p: so each has exactly one. It has no effect until it is delivered.
    """

    name: str
    version: int
    key: PartitionKey
    rule: PartitionRule
    cells: tuple[Cell, ...]
    owners: tuple[str, ...]
    cities: tuple[City, ...] = ()
    cookie: str = "cell"
    """In which a client keeps the name of its cell."""
    entry: EntryMode = "gateway"
    answer_ttl_s: int = 30
    """Directed clients keep the router's answer for so long: the Max-Age of that cookie."""
    first_hit: Literal["nearest", "owner"] = "nearest"
    """Who gets a request without that cookie: any cell, the nearest first (LDC), or the owner, which the gateway
    computes. The latter where clients are directed."""
    misdirected: Literal["forward", "refuse"] = "forward"
    """What a cell does with a request for a partition that it does not own."""
    unkeyed: str = REFUSE
    """Who gets a request without a key: `nearest`, a cell by name, or nobody (`refuse`)."""
    shards: tuple[ShuffleShards, ...] = ()
    """Of services whose pods do not all serve everybody."""
    rollout: Rollout | None = None
    """None: it is for all proxies."""
    namespace: str = DEFAULT_NAMESPACE
    labels: Labels = ()

    def seen_by(self, layer: Layer) -> PartitionMap:
        """The map that the proxies of a layer are to go by."""
        return self if self.rollout is None or self.rollout.layer == layer else self.rollout.previous

    def cell(self, name: str) -> Cell:
        """Raises KeyError."""
        return {cell.name: cell for cell in self.cells}[name]
