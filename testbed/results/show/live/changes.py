"""Recovery so far: each fault and each heal judged again and again by what is known, until that cannot change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

import pyarrow as pa

from testbed.results.measure.control_path import DECIDED, DETECTED_FAULT, DETECTED_HEAL
from testbed.results.measure.entry import Entries
from testbed.results.measure.moments import Moment, moments
from testbed.results.measure.recovery import aftermaths
from testbed.results.measure.steady import Steady
from testbed.results.show.changes import change_figures, fault_figures
from testbed.results.show.html.counted import Happening
from testbed.results.show.live.requests import KEPT_S, RequestsSoFar
from testbed.results.show.summary import ChangeFigures, FaultFigures
from testbed.results.tables.facts import AppliedFault
from testbed.results.tables.schemas import SCHEMAS
from testbed.scenario import RecoveryRule

SETTLED_S = 60.0
"""Clients who have been well for so long are not watched for this change any longer."""
_SIGNS = DETECTED_FAULT | DETECTED_HEAL | DECIDED | {"EntryChanged"}
_NO_PUSHES = SCHEMAS["pushes"].empty_table()
"""When they were acknowledged is known at the end only."""


class ChangesSoFar:
    def __init__(self, rule: RecoveryRule) -> None:
        self._rule = rule
        self._faults: dict[str, AppliedFault] = {}
        self._signs: list[Happening] = []
        self._found: dict[tuple[str, bool], ChangeFigures] = {}
        self._over: set[float] = set()
        """The moments of which nothing can change any more, by their starts."""

    def applied(self, name: str, at_s: float, victims: Sequence[str], *, instant: bool) -> None:
        self._faults[name] = AppliedFault(name, at_s, at_s, instant=instant, victims=tuple(victims))

    def healed(self, name: str, at_s: float) -> None:
        if name in self._faults:
            self._faults[name] = replace(self._faults[name], healed_s=at_s)

    def happened(self, event: Happening) -> None:
        if event.reason in _SIGNS:
            self._signs.append(event)

    def judged(self, requests: RequestsSoFar, now_s: float) -> tuple[FaultFigures, ...]:
        """Every fault; its figures count what clients have seen by now. Lets `requests` forget what is not needed."""
        faults = tuple(self._faults.values())
        every = moments(faults)
        live = [moment for moment in every if moment.start_s not in self._over]
        requests.forget_before(min([now_s, *(moment.start_s for moment in live)]) - KEPT_S)
        if live:
            self._judge(live, requests, faults, now_s)
        return tuple(self._figures(fault) for fault in faults if (fault.name, False) in self._found)

    def _judge(
        self, live: Sequence[Moment], so_far: RequestsSoFar, faults: Sequence[AppliedFault], now_s: float
    ) -> None:
        requests, origin, entry, cell = so_far.kept(faults)
        events = pa.Table.from_pylist(list(map(asdict, self._signs)), schema=SCHEMAS["events"])
        entries = Entries(origin, entry, cell, requests, events)
        steady = Steady(so_far.steady_sent, so_far.steady_not_ok, self._rule)
        # What has no outcome yet can still turn out to be an error.
        known_s = min(now_s, so_far.oldest_under_way_s)
        for moment in live:
            until_s = max(known_s, moment.start_s)
            for change, found in aftermaths(moment, until_s, requests, events, _NO_PUSHES, steady, {}, None):
                moved = entries.moves(moment.start_s, min(now_s, moment.end_s))
                figures = change_figures(replace(found, entry=moved), steady, {})
                if min(until_s, moment.end_s) - change.at_s < self._rule.window_s <= moment.end_s - change.at_s:
                    figures = replace(figures, recovered_s=None, time_to_recover_s=None)
                self._found[change.fault.name, change.heal] = figures
            if self._is_over(moment, known_s):
                self._over.add(moment.start_s)

    def _is_over(self, moment: Moment, known_s: float) -> bool:
        if moment.end_s < known_s - KEPT_S:
            return True
        found = [self._found[change.fault.name, change.heal] for change in moment.changes]
        return all(each.recovered_s is not None and each.recovered_s < known_s - SETTLED_S for each in found)

    def _figures(self, fault: AppliedFault) -> FaultFigures:
        found = self._found
        return fault_figures(fault, found[fault.name, False], found.get((fault.name, True)))
