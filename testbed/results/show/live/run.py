"""A run that goes on, as the pieces of its page: told what happens, reads what was recorded, draws when it is asked."""

from __future__ import annotations

from base64 import b64encode
from collections import deque
from collections.abc import Iterable, Sequence
from hashlib import sha256
from math import inf, isfinite
from pathlib import Path

import jinja2
import orjson
from markupsafe import Markup

from testbed.results.measure.phases import Phase
from testbed.results.show.html import bars, plots
from testbed.results.show.html import map as maps
from testbed.results.show.html.counted import Flow, Happening, Traffic
from testbed.results.show.html.page import asset, course_data, environment
from testbed.results.show.live.calls import CallsSoFar
from testbed.results.show.live.changes import ChangesSoFar
from testbed.results.show.live.requests import RECENT_S, RequestsSoFar
from testbed.results.show.remarks import moves_in_words
from testbed.results.tables.pods import PodIdentity
from testbed.scenario import Scenario

_EVENTS = 60
_ERRORS = 8
_ON_ITS_WAY_S = 3.0
"""Until then a load generator of this machine has written something."""
_SHORTEST_S = 60.0
"""What the axis of time shows of a run whose end nobody knows."""


class LiveRun:
    """Times are seconds since the load began, but for `t0_s`."""

    def __init__(self, scenario: Scenario, logs: Path) -> None:
        self._scenario = scenario
        self._logs = logs
        self._zones = list(dict.fromkeys(source.zone for source in scenario.load.sources))
        self._atlas = _atlas(scenario)
        self._doing = "starting"
        self._state = "coming up"
        self._calls = CallsSoFar(logs)
        self._changes = ChangesSoFar(scenario.recovery)
        self._requests: RequestsSoFar | None = None
        self._events: deque[Happening] = deque(maxlen=_EVENTS)
        self._hit: dict[str, tuple[str, ...]] = {}
        self._t0_s = self._now_s = self._duration_s = 0.0
        self._load_s = inf
        self._most_per_s = 0.0

    # --- what happens -------------------------------------------------------------------------------------------

    def doing(self, what: str, state: str | None = None) -> None:
        self._doing, self._state = what, state or self._state

    def begins(self, t0_s: float, duration_s: float) -> None:
        """All times count from then, of this machine's monotonic clock; it lasts so long, which may be infinite."""
        self._t0_s, self._duration_s = t0_s, duration_s
        self._requests = RequestsSoFar(self._logs, self._zones, t0_s, duration_s)

    def load_starts(self, at_s: float) -> None:
        self._load_s = min(self._load_s, at_s)
        if self._requests is not None:
            self._requests.warm_up(at_s + self._scenario.load.warmup_s)

    def applied(self, fault: str, at_s: float, victims: Sequence[str], *, instant: bool) -> None:
        self._changes.applied(fault, at_s, victims, instant=instant)
        if not instant:
            self._hit[fault] = tuple(victims)
        if self._requests is not None:
            self._requests.changed_at(at_s)

    def healed(self, fault: str, at_s: float) -> None:
        self._changes.healed(fault, at_s)
        self._hit.pop(fault, None)

    def happened(self, events: Iterable[Happening]) -> None:
        for event in events:
            self._events.append(event)
            self._changes.happened(event)

    def pods(self, pods: Iterable[PodIdentity]) -> None:
        self._calls.told(pods)

    # --- what was recorded --------------------------------------------------------------------------------------

    def take(self, monotonic_s: float) -> None:
        """Read what is new."""
        if self._requests is not None:
            self._now_s = monotonic_s - self._t0_s
            self._requests.take(self._now_s)
            self._calls.take(self._now_s)

    @property
    def finished(self) -> int:
        """How many requests are known to have finished."""
        return 0 if self._requests is None else self._requests.outcomes.total()

    # --- the page -----------------------------------------------------------------------------------------------

    def page(self) -> str:
        """With nothing in it yet: `pieces` fill it."""
        return _template("live.html.jinja").render(
            name=self._scenario.name,
            profile=self._scenario.profile,
            seed=self._scenario.seed,
            style=Markup(asset("style.css")),
            scripts=[Markup(script) for script in _scripts()],
            map_legend=maps.legend(),
            recent_s=RECENT_S,
        )

    def pieces(self) -> dict[str, str]:
        """By the id of the element that they belong into."""
        parts = _template("pieces.html.jinja").module
        found = {"state": str(parts.state(self._state)), "doing": self._doing}  # type: ignore[attr-defined]
        found["events"] = str(parts.events(reversed(self._events)))  # type: ignore[attr-defined]
        requests = self._requests
        if requests is None:
            return found
        now_s = max(0.0, self._now_s)
        end_s = self._duration_s if isfinite(self._duration_s) else max(_SHORTEST_S, now_s)
        span = plots.Span(max(end_s, now_s), now_s)
        faults = self._changes.judged(requests, now_s)
        course = requests.course.course(now_s)
        drawn = bool(course.bins) and any(each.sent for each in course.bins)
        p50_ms, p99_ms = requests.course.latencies_ms(now_s - RECENT_S)
        found["map"] = str(self._map(now_s))
        found["tiles"] = parts.tiles(  # type: ignore[attr-defined]
            requests.outcomes, self._recent_rate(), p50_ms, p99_ms, now_s, end_s if isfinite(self._duration_s) else None
        )
        found["course"] = parts.course(  # type: ignore[attr-defined]
            plots.fault_lanes(faults, span) if faults else None,
            plots.success(course, faults, span) if drawn else None,
            plots.rate(course, faults, span) if drawn else None,
            plots.latency(course, faults, span) if any(each.ok for each in course.bins) else None,
            span.end_s,
        )
        found["course-data"] = orjson.dumps(course_data(course)).decode()
        found["recovery"] = parts.recovery(  # type: ignore[attr-defined]
            bars.recovery(faults, "not yet") if faults else None,
            [line for fault in faults for line in moves_in_words(fault)],
        )
        found["errors"] = parts.errors(requests.errors.most_common(_ERRORS))  # type: ignore[attr-defined]
        missing = [zone for zone in self._zones if not (self._logs / f"{zone}.requests.jsonl").exists()]
        found["missing"] = parts.missing(missing if now_s > self._load_s + _ON_ITS_WAY_S else [])  # type: ignore[attr-defined]
        return {name: str(piece) for name, piece in found.items()}

    def _recent_rate(self) -> float:
        assert self._requests is not None
        within_s = min(RECENT_S, max(self._now_s, 1.0))
        return sum(number for number, _ in self._requests.recent_entries().values()) / within_s

    def _map(self, now_s: float) -> Markup:
        assert self._requests is not None
        flows, by_node = self._calls.recent()
        entries = tuple(Flow(*pair, *counts) for pair, counts in self._requests.recent_entries().items())
        phase = Phase("the last seconds", max(0.0, now_s - RECENT_S), max(now_s, 1.0))
        seconds = phase.end_s - phase.start_s
        self._most_per_s = max([self._most_per_s, *(flow.calls / seconds for flow in (*flows, *entries))])
        victims = [victim for hit in self._hit.values() for victim in hit]
        return maps.drawn(self._atlas, Traffic(phase, flows, entries, dict(by_node)), victims, self._most_per_s)


def policy() -> str:
    """The page's Content-Security-Policy: it may fetch from where it is, and run its own scripts."""
    scripts = " ".join(f"'sha256-{b64encode(sha256(each.encode()).digest()).decode()}'" for each in _scripts())
    return (
        f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src {scripts}; connect-src 'self'; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    )


def _scripts() -> tuple[str, ...]:
    return asset("script.js"), asset("../live/live.js")


def _template(name: str) -> jinja2.Template:
    return environment().get_template(name)


def _atlas(scenario: Scenario) -> maps.Atlas:
    region_of: dict[str, str] = {}
    nodes_of: dict[str, list[str]] = {}
    for node in scenario.topology.nodes:
        region_of.setdefault(node.locality.zone, node.locality.region)
        nodes_of.setdefault(node.locality.zone, []).append(node.name)
    return maps.Atlas(region_of, nodes_of)
