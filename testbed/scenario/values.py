"""A checked scenario as plain frozen values: cluster, topology, load, faults, expectations.

Times are seconds, shares are of 1. Imports neither Pydantic nor PyYAML, so that actors which only receive these values
do not load them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any, Literal

from testbed.control.cells.operations import ScheduledOperation
from testbed.documents.problems import Problem
from testbed.faults.timeline import ScheduledFault
from testbed.objects.cells import PartitionKey, PartitionMap
from testbed.objects.cluster import ClusterSpec
from testbed.objects.places import Distance, Topology


@dataclass(frozen=True, slots=True)
class LoadSource:
    """The clients of one zone: an open load where `rate_per_s` is set, a closed one where `users` is."""

    zone: str
    rate_per_s: float | None = None
    arrival: Literal["poisson", "constant"] = "poisson"
    users: int | None = None
    think_time_s: float = 0.0


@dataclass(frozen=True, slots=True)
class RequestSpec:
    """One kind of request; `weight` says how often it is sent in relation to the others."""

    name: str
    method: str = "GET"
    path: str = "/"
    weight: int = 1
    headers: tuple[tuple[str, str], ...] = ()
    body: str | None = None


@dataclass(frozen=True, slots=True)
class IdSpec:
    """The ids that clients carry as their key, one for a session of `session` requests.

    They are the lines of `file`, or 0 to `count` - 1: drawn alike, or with `zipf` the n-th in proportion to
    n^-`exponent`.
    """

    key: PartitionKey
    session: int
    distribution: Literal["uniform", "zipf"] = "uniform"
    count: int = 1
    exponent: float = 0.0
    file: Path | None = None


@dataclass(frozen=True, slots=True)
class DirectedSpec:
    """Clients ask a router in one of `routers` (zones) for their cell, keep the answer for `ttl_s` in that cookie, and
    go to a gateway in one of the zones of the cell."""

    cookie: str
    ttl_s: int
    routers: tuple[str, ...]
    zones: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class OperationKeys:
    """They are `prefix` and a number below `count`; `by_ids`, each is the id that its client carries."""

    count: int
    prefix: str = "k"
    by_ids: bool = False


@dataclass(frozen=True, slots=True)
class LoadSpec:
    """`warmup_s` is the first part of `duration_s`, which is infinite where load goes on until it is stopped. With a
    `locustfile` there are no `requests`."""

    sources: tuple[LoadSource, ...]
    warmup_s: float
    duration_s: float
    requests: tuple[RequestSpec, ...]
    timeout_s: float
    connect_timeout_s: float
    locustfile: Path | None = None
    ids: IdSpec | None = None
    operations: OperationKeys | None = None
    """Of requests with `{key}` in their path, which write and read a store; None where there are none."""
    directed: DirectedSpec | None = None
    """None where clients are not directed to their cell."""


@dataclass(frozen=True, slots=True)
class Price:
    """Of a GB (10^9 bytes) that leaves who sends it, and that arrives at who receives it."""

    out_per_gb: float = 0.0
    in_per_gb: float = 0.0

    @property
    def per_byte(self) -> float:
        return (self.out_per_gb + self.in_per_gb) / 1e9


@dataclass(frozen=True, slots=True)
class Prices:
    """What carrying bytes costs, by distance; free within a node. The defaults are those of AWS on demand, of 2025:
    nothing within an availability zone, 0.01 USD/GB on both sides between two of a region, and 0.02 out of one to
    another (aws.amazon.com/ec2/pricing/on-demand, Data Transfer; between far regions it is more).
    """

    currency: str = "USD"
    same_zone: Price = Price()
    same_city: Price = Price(0.01, 0.01)
    same_region: Price = Price(0.01, 0.01)
    cross_region: Price = Price(0.02)

    def at(self, distance: Distance) -> Price:
        return Price() if distance == "same_node" else getattr(self, distance)


@dataclass(frozen=True, slots=True)
class RecoveryRule:
    """When clients count as well: of the requests of every window so many `at_least` are ok, or as many as chance makes
    of the steady phase's own errors."""

    at_least: float = 0.99
    window_s: float = 1.0
    relative_to_steady: bool = True


@dataclass(frozen=True, slots=True)
class Expectation:
    """Bounds on one metric, in seconds, per second, shares of 1 or a count; `text` is how a report names it.

    `origin` and `cell`, and `service` where the metric is time_to_recover, name a part of all requests.
    """

    metric: str
    when: Literal["all", "steady", "during", "after"]
    fault: str | None
    service: str | None
    at_least: float | None
    at_most: float | None
    text: str
    origin: str | None = None
    cell: str | None = None


@dataclass(frozen=True, slots=True)
class ExpectedShares:
    """With cells, when nothing goes wrong: which share of calls between pods stays in the cell that owns the partition,
    and how many forwards there are for each request."""

    partition_local: float
    forwards: float
    questions: float | None = None
    """Of requests, in the steady phase: those that ask a router. None without one, or where nobody can tell."""
    out_of_zone: float | None = None
    """Of all calls, gateways' too: those that leave their zone. None where nobody can tell."""
    bodies_cost_per_request: float | None = None
    """In the currency of the prices: of the bodies of a request's calls and their answers."""
    session: int = 1
    """So many requests carry one key, and go the same way."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """All that a run needs to know. Fault times count from the start of the load.

    `warnings` are what is doubtful where it is written: no part of what the scenario is.
    """

    name: str
    description: str
    seed: int
    profile: Literal["fast", "kubernetes"]
    ready_timeout_s: float
    cluster: ClusterSpec
    topology: Topology
    load: LoadSpec
    prices: Prices
    cities: dict[str, str]
    """Of zones, where cities are declared."""
    faults: tuple[ScheduledFault, ...]
    expectations: tuple[Expectation, ...]
    _resolved: dict[str, Any] = field(repr=False)
    operations: tuple[ScheduledOperation, ...] = ()
    expected: ExpectedShares | None = field(default=None, compare=False)
    """None where nobody can tell: there are no cells, or the load carries no ids of testbed's own."""
    warnings: tuple[Problem, ...] = field(default=(), repr=False, compare=False)
    cross_cell: dict[str, tuple[str, str]] | None = None
    """Which service may call which one of another cell, by the name of the rule; None where no rules are declared."""
    recovery: RecoveryRule = RecoveryRule()
    routes: tuple[tuple[str, str], ...] = ()
    """Of the gateways: prefix of the path, and the service that gets what no route before it takes."""

    @property
    def cell_map(self) -> PartitionMap | None:
        """The first version; None where there are no cells."""
        return next((each for each in self.cluster.objects if isinstance(each, PartitionMap)), None)

    @property
    def first_change_s(self) -> float:
        """When the first fault or operation comes; infinite without any."""
        return min([inf, *(fault.at_s for fault in self.faults), *(each.at_s for each in self.operations)])

    @property
    def backups(self) -> dict[str, str]:
        """Of cells that have one."""
        cells = () if self.cell_map is None else self.cell_map.cells
        return {cell.name: cell.backup for cell in cells if cell.backup is not None}

    @property
    def resolved(self) -> dict[str, Any]:
        """Plain data of the scenario with overrides and defaults filled in; not to be changed."""
        return self._resolved

    def resolved_yaml(self) -> str:
        """The scenario with overrides and defaults filled in: itself a scenario, which loads to an equal value."""
        from testbed.documents.source import yaml_text

        return yaml_text(self._resolved)
