"""What the supervisor asks of one load process: the JSON file named by the environment variable `TESTBED_LOAD`.

Owns the form of that file, for who writes it and who reads it. It imports neither Locust nor gevent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import orjson

ENVIRONMENT_VARIABLE = "TESTBED_LOAD"
OPERATION_KEY = "{key}"
"""Where in a path the key of a store stands."""


@dataclass(frozen=True, slots=True)
class OpenSource:
    """Requests arrive by the clock, whether or not earlier ones came back."""

    rate_per_s: float
    arrival: Literal["poisson", "constant"] = "poisson"


@dataclass(frozen=True, slots=True)
class ClosedSource:
    """Users who wait for an answer, think, and ask again."""

    users: int
    think_time_s: float = 0.0


@dataclass(frozen=True, slots=True)
class RequestTemplate:
    """One kind of request; `weight` is its share against the others', `name` what records and statistics call it."""

    name: str
    method: str
    path: str
    weight: float = 1.0
    headers: dict[str, str] = field(default_factory=dict)
    body: str | None = None


@dataclass(frozen=True, slots=True)
class Ids:
    """The ids that clients carry, one for `session` requests: in a header, cookie or query parameter of that name, or
    only where `{id}` stands in a path. They are the words of `file`, or 0 to `count` - 1, drawn alike or by Zipf's law.
    """

    where: Literal["header", "cookie", "query", "path"]
    name: str
    session: int
    distribution: Literal["uniform", "zipf"] = "uniform"
    count: int = 1
    exponent: float = 0.0
    file: Path | None = None


@dataclass(frozen=True, slots=True)
class Directed:
    """Clients ask a router for their cell. It answers with a cookie of this name, which they keep for its Max-Age, and
    with the version of its map in that header."""

    cookie: str
    map_version_header: str


@dataclass(frozen=True, slots=True)
class Operations:
    """Requests with `{key}` in their path write (PUT) and read (GET) one of so many keys of a store: `prefix` and a
    number or, `by_ids`, the id of the client. Every value is written once. Answers name in the header `owner` who took
    a write, or which follower answered a read."""

    keys: int
    owner: str
    prefix: str = "k"
    by_ids: bool = False


@dataclass(frozen=True, slots=True)
class Settings:
    """`duration_s` is all of the sending, warm-up included: who reads the records decides which part of it counts.
    Where load is sent until it is stopped, it is infinite (null in the file). `turn` counts the processes that send
    for the zone one after the other, so that none draws what one before it has drawn.
    """

    origin_zone: str
    seed: int
    sources: tuple[OpenSource | ClosedSource, ...]
    duration_s: float
    requests: tuple[RequestTemplate, ...]
    timeout_s: float
    connect_timeout_s: float
    entry_file: Path
    entry_ttl_s: float
    records_file: Path
    locustfile: Path | None
    ids: Ids | None = None
    partition_header: str | None = None
    """The header of answers that names the partition of the request."""
    turn: int = 1
    operations: Operations | None = None
    directed: Directed | None = None
    """Needs ids: they are what a router is asked about. None: all enter by the nearest gateway."""
    guests_socket: Path | None = None
    """Where a Locust that somebody else starts joins the cluster (see `guest`): then nothing conducts it, it takes from
    these settings where it sends to and where it records, and has as many users as its user wants."""

    @property
    def seed_text(self) -> str:
        """What everything random is named by."""
        return f"{self.seed}/{self.origin_zone}" + (f"/turn {self.turn}" if self.turn > 1 else "")

    def save(self, path: Path) -> None:
        """Write what `load` reads."""
        path.write_bytes(orjson.dumps(self, default=str, option=orjson.OPT_INDENT_2))

    @property
    def open_sources(self) -> tuple[OpenSource, ...]:
        return tuple(source for source in self.sources if isinstance(source, OpenSource))

    @property
    def closed_sources(self) -> tuple[ClosedSource, ...]:
        return tuple(source for source in self.sources if isinstance(source, ClosedSource))

    @property
    def closed_users(self) -> int:
        return sum(source.users for source in self.closed_sources)

    @property
    def locust_users(self) -> int:
        """How many Locust users carry the load: one for all open sources together, one for each closed user."""
        return self.closed_users + bool(self.open_sources)


def load(path: Path) -> Settings:
    """Read the settings file; ValueError tells what is wrong with it."""
    document = orjson.loads(path.read_bytes())
    try:
        settings = Settings(
            **{
                **document,
                "duration_s": math.inf if document["duration_s"] is None else document["duration_s"],
                "sources": tuple(map(_source, document["sources"])),
                "requests": tuple(RequestTemplate(**request) for request in document["requests"]),
                "entry_file": Path(document["entry_file"]),
                "records_file": Path(document["records_file"]),
                "locustfile": Path(document["locustfile"]) if document["locustfile"] else None,
                "guests_socket": Path(document["guests_socket"]) if document.get("guests_socket") else None,
                "operations": Operations(**document["operations"]) if document.get("operations") else None,
                "ids": _ids(document["ids"]) if document.get("ids") else None,
                "directed": Directed(**document["directed"]) if document.get("directed") else None,
            }
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: a field is missing or too many: {error}") from None
    if settings.guests_socket is not None:
        return settings
    if settings.locustfile is not None and (settings.open_sources or not settings.closed_users):
        raise ValueError(f"{path}: a locustfile of one's own needs sources with users, its users decide the rate")
    if settings.locustfile is None and not settings.requests:
        raise ValueError(f"{path}: no requests to send: name at least one, or a locustfile")
    if settings.directed is not None and settings.ids is None:
        raise ValueError(f"{path}: clients without ids have nothing to ask a router about")
    if settings.locust_users == 0:
        raise ValueError(f"{path}: no load: a source needs a rate or at least one user")
    return settings


def _ids(ids: dict[str, Any]) -> Ids:
    return Ids(**{**ids, "file": Path(ids["file"]) if ids.get("file") else None})


def _source(source: dict[str, Any]) -> OpenSource | ClosedSource:
    if "rate_per_s" not in source:
        return ClosedSource(**source)
    if source["rate_per_s"] <= 0:
        raise ValueError(f"a source's rate is {source['rate_per_s']}/s, it must be above 0")
    wanted = OpenSource(**source)
    if wanted.arrival not in ("poisson", "constant"):
        raise ValueError(f"a source's arrival is {wanted.arrival!r}, it must be 'poisson' or 'constant'")
    return wanted
