"""Models of cells: the key of a request, the rule that makes a partition of it, and who owns which partitions."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, WithJsonSchema

from testbed.documents.quantities import shown
from testbed.scenario.models.fields import Model, Name, Names, WholeSeconds
from testbed.scenario.schema_rules import exactly_one_of

MAX_PARTITIONS = 10_000
PARTITIONS_PATTERN = "^[0-9]{1,5}(-[0-9]{1,5})?$"
_TOKEN = "^[A-Za-z0-9!#$%&'*+.^_|~-]+$"


def _token(value: str) -> str:
    if not re.fullmatch(_TOKEN, value):
        raise ValueError(f"must be a name without spaces and separators, not {shown(value)}")
    return value


def _one_group(value: str) -> str:
    try:
        groups = re.compile(value).groups
    except re.error as error:
        raise ValueError(f"is no regular expression: {error}") from None
    if groups != 1:
        raise ValueError(f"must have one group ( ), which is the id, and has {groups}; (?: ) is none")
    return value


def as_partitions(value: Any) -> Any:
    """One range may be written without the brackets of a list, and a single partition as the number that it is."""
    values = value if isinstance(value, list) else [value]
    return [str(each) if isinstance(each, int) and not isinstance(each, bool) else each for each in values]


def _range(value: str) -> str:
    if not re.fullmatch(PARTITIONS_PATTERN, value):
        raise ValueError(f"must be a partition or a range of them such as 0-24, not {shown(value)}")
    return value


Token = Annotated[str, AfterValidator(_token), WithJsonSchema({"type": "string", "pattern": _TOKEN})]
Partitions = Annotated[
    str, AfterValidator(_range), WithJsonSchema({"type": ["string", "integer"], "pattern": PARTITIONS_PATTERN})
]


class KeyModel(Model):
    """Where a request that enters carries the id; exactly one of header, cookie, query and path."""

    model_config = ConfigDict(json_schema_extra=exactly_one_of("header", "cookie", "query", "path"))

    header: Token | None = None
    """A header of this name."""
    cookie: Token | None = None
    """A cookie of this name."""
    query: Token | None = None
    """A query parameter of this name."""
    path: Annotated[str, AfterValidator(_one_group)] | None = None
    """A regular expression for the whole path, without query; its one group is the id."""


class AllOfItModel(Model):
    """The whole id counts."""


class PartitionRuleModel(Model):
    """How an id becomes a partition; exactly one of digits, modulo, hash and ranges."""

    model_config = ConfigDict(json_schema_extra=exactly_one_of("digits", "modulo", "hash", "ranges"))

    digits: Annotated[list[Annotated[int, Field(ge=1, le=15)]], Field(min_length=1, max_length=4)] | None = None
    """These digits of a decimal id, 1 is the last one. LDC: [3, 2], the third-last and the second-last."""
    modulo: AllOfItModel | None = None
    """The remainder of a decimal id."""
    hash: AllOfItModel | None = None
    """FNV-1a of any text."""
    ranges: Annotated[list[Annotated[int, Field(ge=0, le=10**15)]], Field(min_length=1)] | None = None
    """The first id of each partition, rising."""


class CellModel(Model):
    """A cell: a part of all sharded services, with the zones that it lives in. LDC calls it a unit."""

    zones: Names
    """Zones that its pods are in."""
    partitions: (
        Annotated[
            list[Partitions],
            BeforeValidator(as_partitions, json_schema_input_type=str | int | list[str | int]),
            Field(min_length=1),
        ]
        | None
    ) = None
    """What it owns: `0-24`, or a list of partitions and ranges. Default: where no cell says so, equal shares."""
    groups: dict[Name, Annotated[int, Field(ge=0, le=100)]] = Field(default_factory=dict)
    """Deployment groups (blue and green, A and B), each with its percentage of the cell's calls. Default: none."""
    backup: str | None = None
    """The cell that takes over from it."""
    elastic: bool = False
    """It has pods, but owns nothing until it is used."""


class CrossCellModel(Model):
    """A call that may leave its cell for another one."""

    from_: Annotated[str, Field(alias="from")]
    """The service that calls."""
    to: str
    """The service of the other cell."""


class RouterModel(Model):
    """Routers tell clients their cell, by its map and in the answer's cookie."""

    zones: Names | None = None
    """Zones with one router each; clients ask the nearest healthy one. Default: all zones."""
    ttl: WholeSeconds = 30.0
    """For how long a client keeps an answer: the Max-Age of the cookie, in whole seconds."""


class CellsModel(Model):
    """Cells: every request belongs to one of them by its key."""

    key: KeyModel
    """Where a request carries the id."""
    partition: PartitionRuleModel = PartitionRuleModel(digits=[3, 2])
    """How it becomes a partition."""
    partitions: Annotated[int, Field(ge=1, le=MAX_PARTITIONS)] = 100
    """How many partitions there are."""
    cells: Annotated[dict[Name, CellModel], Field(min_length=1)]
    """Cells by name."""
    cities: dict[Name, Names] = Field(default_factory=dict)
    """Zones that share one copy of every `perCity` service. Default: each region is a city."""
    cookie: Token = "cell"
    """The cookie in which clients keep the name of their cell."""
    entry: Literal["gateway", "directed"] = "gateway"
    """How requests find their cell. `gateway`: by the nearest gateway, which leads on to it. `directed`: clients ask a
    router once, keep the answer, and go to a gateway of their cell."""
    router: RouterModel | None = None
    """Only with entry `directed`."""
    first_hit: Literal["nearest", "owner"] | None = None
    """Who gets a request without that cookie: the nearest cell, which computes the owner and forwards, or the `owner`,
    which the gateway computes. Only with entry `gateway`. Default `nearest`."""
    misdirected: Literal["forward", "refuse"] = "forward"
    """What a cell does with a request for what it does not own: send it on, once, or answer 421."""
    cross_cell: dict[Name, CrossCellModel] | None = None
    """Which calls may go to another cell than their caller's, by the name of the rule; all others that do are leaks,
    and with `{}` all are. Default: such calls are counted, but no leaks."""
    unkeyed: str | None = None
    """Who gets a request without a key: `nearest`, a cell, or nobody (`refuse`: 400). Required where there are such
    requests. Default `refuse`."""
