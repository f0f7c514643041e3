"""How clients found another gateway: the entry into the platform as a phase of its own in every aftermath.

Owns the definition; it stands at `Entries.moves`. Health checks and the TTL are `control.entry`'s and `loadgen`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from testbed.results.measure.outcomes import Errors
from testbed.results.tables.columns import Codes, Floats, Mask, Requests, codes, floats

Coded = tuple[Codes, Sequence[str]]
_CHANGED = "EntryChanged"


@dataclass(frozen=True, slots=True)
class EntryMove:
    """The clients of zone `origin` went from the gateway of one zone to that of another. Times are since the load
    began. `answered_s` is when the checks had changed what the clients are told, None where nobody noted that. Clients
    that are directed to a cell find its gateways for themselves: `cell` says which."""

    origin: str
    left: str
    to: str
    began_s: float
    answered_s: float | None
    moved_s: float
    errors: Errors
    cell: str | None = None


@dataclass(frozen=True, slots=True)
class _Origin:
    """The requests of the clients of one zone (and cell) that went to a gateway, in order of `sent_s`."""

    requests: Requests
    entry: Codes
    answers_s: Floats


class Entries:
    """Where all requests of a run entered."""

    def __init__(self, origin: Coded, entry: Coded, cell: Coded, requests: Requests, events: pa.Table) -> None:
        """Zones of the requests, and the cells that their clients were directed to, as codes (-1 for null) into
        names."""
        numbers, self._zones = entry
        changed = events.filter(pc.fill_null(pc.equal(events["reason"], _CHANGED), False))
        told, zones = codes(changed["object"])
        told_s = floats(changed["t_s"])
        self._origins: dict[tuple[str, str | None], _Origin] = {}
        for zone, name in sorted((zone, name) for zone in origin[1] for name in ("", *cell[1])):
            of_cell = cell[0] == (cell[1].index(name) if name else -1)
            own = np.flatnonzero((origin[0] == origin[1].index(zone)) & of_cell & (numbers >= 0))
            own = own[np.argsort(requests.sent_s[own], kind="stable")]
            if len(own):
                answers_s = told_s[told == zones.index(zone)] if zone in zones else told_s[:0]
                self._origins[zone, name or None] = _Origin(requests.where(own), numbers[own], np.sort(answers_s))

    @classmethod
    def of(cls, table: pa.Table, requests: Requests, events: pa.Table) -> Entries:
        origin, entry, cell = (codes(table[column]) for column in ("origin_zone", "entry_zone", "cell"))
        return cls(origin, entry, cell, requests, events)

    def moves(self, start_s: float, end_s: float) -> tuple[EntryMove, ...]:
        """The first move of the clients of every zone (and cell) in an aftermath, that of a change at `start_s`.

        - left: where the last request before the change went; moved: when the first one was sent elsewhere.
        - errors: what was sent to the gateway that was left, before the move, and counts in the aftermath.
        - began: the first of these errors (the change, for what was in flight), or where there are none what the
          clients are told.
        """
        found = (self._move(zone, cell, each, start_s, end_s) for (zone, cell), each in self._origins.items())
        return tuple(move for move in found if move is not None)

    def _move(self, zone: str, cell: str | None, origin: _Origin, start_s: float, end_s: float) -> EntryMove | None:
        requests, entry = origin.requests, origin.entry
        first, end = np.searchsorted(requests.sent_s, (start_s, end_s)).tolist()
        left = int(entry[max(0, first - 1)])
        elsewhere = np.flatnonzero(entry[first:end] != left)
        if not len(elsewhere):
            return None
        at = first + int(elsewhere[0])
        moved_s = float(requests.sent_s[at])
        inside: Mask = (requests.counted_s[:at] >= start_s) & (requests.counted_s[:at] < end_s)
        lost = inside & ~requests.ok[:at] & (entry[:at] == left)
        answers_s = origin.answers_s[(origin.answers_s >= start_s) & (origin.answers_s <= moved_s)]
        answered_s = float(answers_s[0]) if len(answers_s) else None
        began_s = moved_s if answered_s is None else answered_s
        if lost.any():
            began_s = float(requests.counted_s[:at][lost].min())
        return EntryMove(
            zone,
            self._zones[left],
            self._zones[int(entry[at])],
            began_s,
            answered_s,
            moved_s,
            Errors.among(lost, requests.failed[:at]),
            cell,
        )
