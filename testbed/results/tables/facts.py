"""What a run knows about itself that no table holds; `facts.json` in its folder, so that a report can be made again."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from testbed.control.cells.ownership import Move
from testbed.results.tables.damage import BadRunFolder
from testbed.scenario import Expectation, ExpectedShares, LoadSource, Prices, RecoveryRule
from testbed.scenario.models.metrics import METRICS

if TYPE_CHECKING:
    from pydantic import ValidationError

FORMAT = 1
"""Of a result folder as a whole. It is raised with what this testbed would misread in an older folder, or an older one
in this. A column or a fact that is new and can be missing does not raise it."""
_FILE = "facts.json"
_NAMED = 4


def named(victims: Sequence[str]) -> str:
    """For people: the first few by name."""
    more = len(victims) - _NAMED
    return ", ".join(victims[:_NAMED]) + (f" and {more} more" if more > 0 else "")


@dataclass(frozen=True, slots=True)
class PromotedData:
    """From when to when leaders of a store's groups were brought to where their partitions go. `missing` are the
    replicas that did not know by then that they lead."""

    began_s: float
    until_s: float
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HeldWrites:
    """Writes of what a step moved were forbidden from `began_s` on, by all replicas of the store but those `missing`
    at `forbidden_s`. At `caught_up_s` the new owner had what it `lacked`, of all that was told while it was waited for
    the most, and at `lifted_s` writes were allowed again. Where it never had, the step was `given_up_s`, and taken back
    before the lift."""

    began_s: float
    forbidden_s: float
    caught_up_s: float | None
    lifted_s: float
    lacked: int = 0
    missing: tuple[str, ...] = ()
    given_up_s: float | None = None


@dataclass(frozen=True, slots=True)
class MapStep:
    """A new version of the partition map. `delivered_s` says for each layer of proxies when all of it that could be
    reached had acknowledged (None: not while it was waited for), `missing` who had not, reached or not."""

    number: int
    of: int
    reverts: bool
    declared_s: float
    applied_s: float
    version: int
    partitions: str
    delivered_s: dict[str, float | None] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    lent: tuple[int, ...] = ()
    """Partitions that by this version are with another cell because their own one was given up."""
    gives_up: bool = False
    """It reverts because the operation was given up."""
    moves: tuple[Move, ...] = ()
    """Of `partitions`, from which cell to which."""
    promoted: PromotedData | None = None
    """None where no data was moved before."""
    held: HeldWrites | None = None
    """None where nothing forbade writes."""

    @property
    def data(self) -> PromotedData | HeldWrites | None:
        """What was done about the data of what moves, if anything was."""
        return self.promoted or self.held

    @property
    def began_s(self) -> float:
        """When it was first felt: with the data, if that came first."""
        return self.applied_s if self.data is None else self.data.began_s


@dataclass(frozen=True, slots=True)
class AppliedFault:
    """When a fault was to come, when it came, and when it was lifted again (None: never).

    So is an operation, which has `steps`: it is applied with the first one. It is over, `healed_s`, with the last.
    """

    name: str
    declared_at_s: float
    applied_s: float
    healed_s: float | None = None
    declared_heal_s: float | None = None
    instant: bool = False
    """It has no duration, and so no heal: a kill."""
    by_command: bool = False
    """A command of the user's did it, in its own time."""
    victims: tuple[str, ...] | None = None
    """Pods, nodes, machines or directed links (`a > b`) that it hit; None where nobody noted it."""
    hit_nothing: str = ""
    """Why there are no victims."""
    steps: tuple[MapStep, ...] = ()
    cut_off: tuple[str, ...] = ()
    """Places that while it lasts do not reach the control plane, or are not reached by it, by a cut of links."""

    @property
    def is_operation(self) -> bool:
        """Whether somebody wanted it."""
        return bool(self.steps)


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """A machine of the run: what lived there, and its clock against that of the machine that drove the run."""

    name: str
    places: tuple[str, ...] = ()
    epoch_step_s: float = 0.0
    """How much its epoch clock, which proxies log, moved against its monotonic one, which clients record."""
    clock_offset_s: float = 0.0
    clock_drift: float = 0.0
    clock_error_s: float = 0.0
    """By how much times of this machine can be wrong in the tables, after correction."""
    lost_s: float | None = None
    """Since when it was silent for good."""
    records_until_s: float | None = None
    """Up to when its records were brought home before that."""
    powered_off: bool = False
    """Whether a fault of the scenario made it so."""
    hardware: str = ""
    """For people."""
    software: str = ""
    """Versions of Python and testbed, with a digest of its sources."""


@dataclass(frozen=True, slots=True)
class LocustCount:
    """Locust's own statistics of one origin zone; its failures are the failed and the unknown together.

    They include events that the user's locustfile fired itself, which are no requests.
    """

    requests: int
    failures: int
    own_events: int = 0
    own_failures: int = 0

    def plus(self, other: LocustCount) -> LocustCount:
        """Of two processes, or of one after the other."""
        return LocustCount(
            self.requests + other.requests,
            self.failures + other.failures,
            self.own_events + other.own_events,
            self.own_failures + other.own_failures,
        )


@dataclass(frozen=True, slots=True)
class UnreadLines:
    """Lines of one raw log that are in no table."""

    file: str
    unreadable: int = 0
    orphans: int = 0
    """Finishes of requests that were never sent."""
    unknown: int = 0
    """Lines of a pod that nobody knew."""

    @property
    def lines(self) -> int:
        return self.unreadable + self.orphans + self.unknown


@dataclass(frozen=True, slots=True)
class RunFacts:
    """All about a run but its tables. Times are seconds since the load started."""

    name: str
    seed: int
    profile: str
    warmup_s: float
    end_s: float
    """When the load ended: its declared duration, warm-up included, or less where the run was interrupted."""
    ready_s: float
    """How long it took from nothing until every pod was ready."""
    sources: tuple[LoadSource, ...] = ()
    sending: tuple[tuple[float, float], ...] = ()
    """From when to when the load of the sources was sent, where that is not all the time: a person started and stopped
    it."""
    faults: tuple[AppliedFault, ...] = ()
    expectations: tuple[Expectation, ...] = ()
    prices: Prices = field(default_factory=Prices)
    cities: dict[str, str] = field(default_factory=dict)
    """Of zones, where cities are declared."""
    backups: dict[str, str] = field(default_factory=dict)
    """Of cells that have one."""
    cross_cell: dict[str, tuple[str, str]] | None = None
    """Which service may call which one of another cell, by the name of the rule; None where no rules are declared."""
    expected: ExpectedShares | None = None
    recovery: RecoveryRule = field(default_factory=RecoveryRule)
    routes: tuple[tuple[str, str], ...] = ()
    """Of the gateways: prefix of the path, and the service that gets what no route before it takes."""
    locust: dict[str, LocustCount] = field(default_factory=dict)
    """By origin zone; a zone is missing if its Locust died before it could count."""
    killed_proxies: tuple[tuple[str, float], ...] = ()
    """Pod and time of every proxy that was killed, by a fault or by its node's crash."""
    machines: tuple[MachineFacts, ...] = ()
    hosting: str = ""
    """Where pods' supervisors lived: `actor` or `node`."""
    unread: tuple[UnreadLines, ...] = ()
    """Of every log that was not read whole."""
    logs_hops: bool = True
    """False where no proxy is in the way of requests, so that no hops can be expected."""
    interrupted: bool = False
    broken: str | None = None
    """What the testbed itself could not do, where the run went on without it."""

    def records_until_s(self, place: str) -> float | None:
        """Up to when there are records of a place whose machine was lost; None where it was not."""
        return next((machine.records_until_s for machine in self.machines if place in machine.places), None)

    def unrecorded(self) -> list[tuple[float, float]]:
        """Of every lost machine: since when its records did not come home, and since when it was silent."""
        return [
            (machine.records_until_s, machine.lost_s)
            for machine in self.machines
            if machine.records_until_s is not None and machine.lost_s is not None
        ]

    @property
    def has_routes_by_path(self) -> bool:
        """Whether only the path of a request tells which service it goes to."""
        return bool(self.routes) and self.routes[0][0] != "/"

    @property
    def lent(self) -> dict[int, tuple[int, ...]]:
        """By version of the partition map: the partitions that another cell has because their own one was given up."""
        return {step.version: step.lent for fault in self.faults for step in fault.steps}

    def save(self, run_dir: Path) -> None:
        facts = {each.name: getattr(self, each.name) for each in fields(self)}
        written = {"format": FORMAT, "testbed": _version(), **facts}
        (run_dir / _FILE).write_bytes(orjson.dumps(written, option=orjson.OPT_INDENT_2))

    @classmethod
    def load(cls, run_dir: Path) -> RunFacts:
        """Raises BadRunFolder: the folder is none of a finished run, is of another format, or was damaged or altered.

        A folder without a format was written before there were any, and is read as the first.
        """
        # Whoever only saves facts must not load Pydantic.
        from pydantic import TypeAdapter, ValidationError

        path = run_dir / _FILE
        try:
            content = path.read_bytes()
            _require_format(path, content)
            facts = TypeAdapter(cls).validate_json(content, strict=True)
        except FileNotFoundError:
            raise BadRunFolder(f"{path}: is missing, so this is not the folder of a finished run") from None
        except OSError as error:
            raise BadRunFolder(f"{path}: cannot be read: {error.strerror}") from error
        except ValidationError as error:
            raise BadRunFolder(f"{path}: {_first_of(error)}") from error
        if unknown := {expectation.metric for expectation in facts.expectations} - METRICS.keys():
            raise BadRunFolder(f"{path}: expectations: {min(unknown)!r} is no metric of this version of testbed")
        return facts


def _version() -> str:
    return importlib.metadata.version("testbed")


def _require_format(path: Path, content: bytes) -> None:
    """Whatever else is wrong with the file is found by who reads all of it."""
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError:
        return
    if not isinstance(document, dict) or (found := document.get("format", 1)) == FORMAT:
        return
    if type(found) is not int:
        raise BadRunFolder(f"{path}: format should be a whole number")
    writer = f"testbed {document.get('testbed', 'of an unknown version')}"
    this = f"this is testbed {_version()}, which reads format {FORMAT}"
    raise BadRunFolder(f"{path}: the folder has format {found}, which {writer} wrote and reads; {this}")


_SHOULD_BE = {
    "missing": "is missing",
    "float": "should be a number",
    "int": "should be a whole number",
    "string": "should be a text",
    "bool": "should be true or false",
    "tuple": "should be a list",
    "too": "is a list of the wrong length",
    "dict": "should be an object",
    "dataclass": "should be an object",
}
"""By the first word of the types of Pydantic's errors."""


def _first_of(error: ValidationError) -> str:
    first, *others = error.errors(include_url=False)
    if first["type"] == "json_invalid":
        return "is no JSON, or only a part of it"
    where = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in first["loc"]).lstrip(".")
    what = _SHOULD_BE.get(first["type"].partition("_")[0], "has a value that it cannot have")
    more = f", and {len(others)} more" if others else ""
    return f"{where} {what}{more}".lstrip()
