"""What `summary.json` holds, as values: the one thing that reports, and whoever compares runs, are made from.

Fields are keys, in their order. Times are seconds since the load started, shares are of 1, None is for what has no
value. Whatever `measure` and `judge` found stands here as it is; `summarize` fills in the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import orjson

from testbed.results.judge.undeclared import Undeclared
from testbed.results.judge.verdict import ExpectationResult, Verdict
from testbed.results.measure.blocked import BlockedWrites
from testbed.results.measure.calls import CallMatrix
from testbed.results.measure.control_path import ControlPath
from testbed.results.measure.entry import EntryMove
from testbed.results.measure.expected import Compared
from testbed.results.measure.handover import Handover
from testbed.results.measure.leaders import LeaderChange
from testbed.results.measure.ledger import PhaseLedger
from testbed.results.measure.outcomes import Errors
from testbed.results.measure.parts import By
from testbed.results.measure.phases import PhaseStats
from testbed.results.tables.facts import LocustCount, MapStep, UnreadLines
from testbed.scenario import Prices


@dataclass(frozen=True, slots=True)
class RequestCounts:
    sent: int
    ok: int
    failed: int
    unknown: int


@dataclass(frozen=True, slots=True)
class ErrorCount:
    """How many requests ended like this."""

    outcome: str
    error: str | None
    count: int


@dataclass(frozen=True, slots=True)
class RecoveryBaseline:
    """What recovery is judged against."""

    steady_not_ok_share: float
    steady_below_target: bool
    steady_below_target_by: dict[By, tuple[str, ...]]
    """The parts of all requests of which less was ok in the steady phase than the rule asks for."""
    target_success_rate: float
    window_s: float
    relative_to_steady: bool


# Without slots, as a change is one of these: all requests together.
@dataclass(frozen=True)
class RecoveryFigures:
    """How clients, or a part of them, lived through a fault or its heal. `errors_as_in_steady` is how many requests
    would not have been ok at the steady phase's level, without any fault."""

    first_error_s: float | None
    first_error_seen_s: float | None
    last_error_s: float | None
    recovered_s: float | None
    time_to_recover_s: float | None
    errors: Errors
    errors_as_in_steady: float
    sent: int


@dataclass(frozen=True, slots=True)
class EntryFigures:
    """Clients that moved to another gateway: from the first sign to the last of the moves, and what was not ok of
    requests to the gateways that they left."""

    began_s: float
    moved_s: float
    errors: Errors
    moves: tuple[EntryMove, ...]


# Without slots, as a fault is both of these: what it was, and what followed.
@dataclass(frozen=True)
class ChangeFigures(RecoveryFigures):
    """What followed a fault, or its heal. `entry` is None where no clients moved."""

    entry: EntryFigures | None
    control_path: ControlPath
    by: dict[By, dict[str, RecoveryFigures]]
    shared_with: tuple[str, ...]


@dataclass(frozen=True)
class _Fault:
    name: str
    declared_at_s: float
    applied_s: float
    healed_s: float | None
    victims: tuple[str, ...] | None
    hit_nothing: str
    steps: tuple[MapStep, ...]


@dataclass(frozen=True)
class FaultFigures(ChangeFigures, _Fault):
    """`healed_s` is None, and so is `heal`, where there was none while the load lasted. An operation has `steps`, and
    for each of them a hand-over, or None where it moved no partitions."""

    heal: ChangeFigures | None
    handovers: tuple[Handover | None, ...]


@dataclass(frozen=True, slots=True)
class LedgerFigures:
    """What calls carried how far, and what that costs."""

    prices: Prices
    cities: dict[str, str]
    by_phase: dict[str, PhaseLedger]
    as_expected: tuple[Compared, ...]
    """Of cells, in the steady phase."""


@dataclass(frozen=True, slots=True)
class HopCounts:
    calls: int
    requests_of_strangers: int
    calls_of_strangers: int
    ok_requests_without_hops: int
    explained_by_killed_proxies: int


@dataclass(frozen=True, slots=True)
class UnreadLogs:
    """Logs with lines that are in no table, and what of that nothing explains."""

    all: tuple[UnreadLines, ...]
    unexplained: tuple[UnreadLines, ...]


@dataclass(frozen=True, slots=True)
class Nack:
    """A row of `pushes`."""

    proxy: str
    type: str
    version: str
    sent_s: float | None
    error: str


@dataclass(frozen=True, slots=True)
class Nacks:
    count: int
    first: tuple[Nack, ...]


@dataclass(frozen=True, slots=True)
class MachineFigures:
    name: str
    places: tuple[str, ...]
    clock_error_ms: float
    clock_drift_ppm: float
    lost_s: float | None
    powered_off: bool


@dataclass(frozen=True, slots=True)
class FoundInHistory:
    """Something that a store must not do: an operation, and the one that proves it."""

    kind: str
    key: str
    partition: str
    value: str | None
    process: str
    invoked_s: float
    returned_s: float
    other_value: str | None
    other_invoked_s: float | None


@dataclass(frozen=True, slots=True)
class HistoryFigures:
    """What clients did to a store's keys, and how much of it must not be, by kind; `first` are the first findings of
    each kind. Of the keys in `gave_up` nobody knows whether they are linearizable."""

    operations: int
    acknowledged_writes: int
    unknown_writes: int
    reads: int
    found: dict[str, int]
    first: tuple[FoundInHistory, ...]
    gave_up: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MissingLoad:
    """Clients that went with their machine: their rate until then, or how many they were in a closed load."""

    zone: str
    machine: str
    from_s: float
    rate_per_s: float
    users: int


@dataclass(frozen=True, slots=True)
class Summary:
    """Shares and matrices without a phase in their names are of the steady phase, or of all where there was none."""

    name: str
    verdict: Verdict
    valid: bool
    invalid_reasons: tuple[str, ...]
    undeclared: tuple[Undeclared, ...]
    interrupted: bool
    seed: int
    profile: str
    ready_s: float
    requests: RequestCounts
    locust: LocustCount
    errors: tuple[ErrorCount, ...]
    """The most frequent first."""
    expectations: tuple[ExpectationResult, ...]
    recovery_baseline: RecoveryBaseline
    faults: tuple[FaultFigures, ...]
    phases: tuple[PhaseStats, ...]
    same_zone_share: float | None
    same_cell_share: float | None
    same_zone_share_by_service: dict[str, float]
    same_zone_share_by_phase: dict[str, float | None]
    same_cell_share_by_phase: dict[str, float | None]
    call_matrix: CallMatrix
    call_matrix_by_phase: dict[str, CallMatrix]
    ledger: LedgerFigures
    hops: HopCounts
    unread_lines: UnreadLogs
    nacks: Nacks
    machines: tuple[MachineFigures, ...]
    missing_load: tuple[MissingLoad, ...]
    clock_error_ms: float
    """The largest of all machines."""
    history: HistoryFigures | None = None
    """None where clients did nothing to a store's keys."""
    leaders: tuple[LeaderChange, ...] = ()
    """Changes of who leads which log while load was sent."""
    blocked: dict[str, BlockedWrites] = field(default_factory=dict)
    """By version of the partition map (JSON has keys of text), of steps before which data was moved."""

    def json(self) -> bytes:
        """The content of `summary.json`."""
        return orjson.dumps(self, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
