"""What clients have seen so far: every request, as soon as it has finished, from the records of the load generators.

Keeps single requests only as long as a change may have to be judged by them.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from loadgen import records
from testbed.results.measure.entry import Coded
from testbed.results.show.live.course import CourseSoFar
from testbed.results.show.live.tail import Tail
from testbed.results.tables.columns import Floats, Requests, counted_from
from testbed.results.tables.facts import AppliedFault

KEPT_S = 30.0
"""How long single requests are kept without a change: what is in flight when one comes has been sent by then."""
RECENT_S = 10.0
_SUFFIX = ".requests.jsonl"
_ERRORS = 200


class RequestsSoFar:
    """`take` reads what is new. Times are seconds since the load began, at `t0_s` of this machine's monotonic clock."""

    def __init__(self, logs: Path, zones: Sequence[str], t0_s: float, expected_s: float) -> None:
        self.course = CourseSoFar(expected_s)
        self.outcomes: Counter[str] = Counter()
        self.errors: Counter[tuple[str, str]] = Counter()
        """By outcome and reason; of the reasons the first so many, others together."""
        self.steady_sent = self.steady_not_ok = 0
        self._zones = list(zones)
        self._number = {zone: number for number, zone in enumerate(zones)}
        self._tails = {zone: Tail(logs / f"{zone}{_SUFFIX}") for zone in zones}
        self._t0_s, self._warmup_s = t0_s, np.inf
        self._first_change_s = np.inf
        self._under_way: dict[str, tuple[float, float, int, int]] = {}
        self._cells: list[str] = []
        self._rows = np.zeros((7, 0))
        """intended_s, sent_s, finished_s, outcome, origin, entry and cell of those that have finished."""
        self._entries: deque[tuple[float, Counter[tuple[int, int, bool]]]] = deque()

    def take(self, now_s: float) -> None:
        rows: list[tuple[float, ...]] = []
        entered: Counter[tuple[int, int, bool]] = Counter()
        for zone, tail in self._tails.items():
            for line in tail.new():
                try:
                    self._line(line, self._number[zone], rows)
                except (KeyError, TypeError, ValueError, AttributeError):
                    # `testbed report` counts what cannot be read.
                    continue
        if rows:
            new = np.array(rows).T
            self._add(new)
            for origin, entry, outcome in zip(new[4].tolist(), new[5].tolist(), new[3].tolist(), strict=True):
                entered[int(origin), int(entry), outcome != 0] += 1
        self._entries.append((now_s, entered))
        while self._entries[0][0] <= now_s - RECENT_S:
            self._entries.popleft()

    def warm_up(self, until_s: float) -> None:
        """No phase is steady before. Only the first time counts."""
        self._warmup_s = min(self._warmup_s, until_s)

    def changed_at(self, at_s: float) -> None:
        """A change that came at that time. What is in the steady phase is known since the first one."""
        if at_s < self._first_change_s:
            self._first_change_s = at_s
            late = self._steady(self._rows, np.inf) & ~self._steady(self._rows, at_s)
            self.steady_sent -= int(late.sum())
            self.steady_not_ok -= int((late & (self._rows[3] != 0)).sum())

    def forget_before(self, at_s: float) -> None:
        """Single requests that were to be sent before then are not needed any more."""
        self._rows = self._rows[:, self._rows[0] >= at_s]

    @property
    def oldest_under_way_s(self) -> float:
        """When the oldest request without an outcome was to be sent; infinite where there is none."""
        return min((intended_s for intended_s, *_ in self._under_way.values()), default=np.inf) - self._t0_s

    def kept(self, faults: Sequence[AppliedFault]) -> tuple[Requests, Coded, Coded, Coded]:
        """The single requests, with their zones of origin and of entry, and the cells that clients were directed to."""
        intended_s, sent_s, finished_s, outcome, *places = self._rows
        latency_ms = (finished_s - intended_s) * 1e3
        counted_s = counted_from(intended_s, finished_s, faults)
        requests = Requests(intended_s, counted_s, sent_s, finished_s, latency_ms, outcome == 0, outcome == 1)
        origin, entry, cell = (place.astype(np.int64) for place in places)
        return requests, (origin, self._zones), (entry, self._zones), (cell, self._cells)

    def recent_entries(self) -> dict[tuple[str, str], tuple[int, int]]:
        """Requests that finished in the last seconds by origin and entry, and how many of them were not ok."""
        found: dict[tuple[str, str], tuple[int, int]] = {}
        for _, counts in self._entries:
            for (origin, entry, bad), number in counts.items():
                if entry >= 0:
                    pair = self._zones[origin], self._zones[entry]
                    all_, failed = found.get(pair, (0, 0))
                    found[pair] = all_ + number, failed + number * bad
        return found

    def _line(self, line: Any, origin: int, rows: list[tuple[float, ...]]) -> None:
        kind = line[records.KIND]
        if kind == records.SENT:
            sent = (line[records.INTENDED_S], line[records.SENT_S], origin, self._zone(line[records.ENTRY_ZONE]))
            self._under_way[line[records.ID]] = sent
        elif kind == records.FINISHED:
            outcome = records.OUTCOMES.index(line[records.OUTCOME])
            if outcome:
                error = (line[records.OUTCOME], line[records.ERROR] or "no reason given")
                known = error in self.errors or len(self.errors) < _ERRORS
                self.errors[error if known else (error[0], "other errors")] += 1
            intended_s, sent_s, origin, entry = self._under_way.pop(line[records.ID])
            if records.ENTRY_ZONE in line:
                # It was directed: where it entered was known on the way only.
                entry = self._zone(line[records.ENTRY_ZONE])
            cell = self._cell(line.get(records.CELL))
            rows.append((intended_s, sent_s, line[records.FINISHED_S], outcome, origin, entry, cell))

    def _zone(self, name: str | None) -> int:
        """-1 for none. A gateway can be in a zone without clients."""
        if name is None:
            return -1
        if name not in self._number:
            self._number[name] = len(self._zones)
            self._zones.append(name)
        return self._number[name]

    def _cell(self, name: str | None) -> int:
        """-1 for none."""
        if name is None:
            return -1
        if name not in self._cells:
            self._cells.append(name)
        return self._cells.index(name)

    def _add(self, new: Floats) -> None:
        new[:3] -= self._t0_s
        outcome = new[3].astype(np.int64)
        self.course.add(new[0], outcome, (new[2] - new[0]) * 1e3)
        for name, number in zip(records.OUTCOMES, np.bincount(outcome, minlength=3).tolist(), strict=True):
            self.outcomes[name] += number
        steady = self._steady(new, self._first_change_s)
        self.steady_sent += int(steady.sum())
        self.steady_not_ok += int((steady & (outcome != 0)).sum())
        self._rows = np.concatenate((self._rows, new), axis=1)

    def _steady(self, rows: Floats, first_change_s: float) -> np.ndarray[Any, np.dtype[np.bool_]]:
        inside: np.ndarray[Any, np.dtype[np.bool_]] = (rows[0] >= self._warmup_s) & (rows[2] < first_change_s)
        return inside
