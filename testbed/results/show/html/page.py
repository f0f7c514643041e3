"""Summary and tables -> the page. Everything that could grow without bound is cut off here, and says so."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from testbed.results.measure.analysis import ALL
from testbed.results.measure.phases import Phase, PhaseStats
from testbed.results.show import figures
from testbed.results.show.history_table import history_table
from testbed.results.show.html import bars, counted, plots
from testbed.results.show.html import map as maps
from testbed.results.show.leader_table import leader_table
from testbed.results.show.ledger_tables import by_distance, by_right
from testbed.results.show.operation_table import changes_heading, operation_steps
from testbed.results.show.remarks import fault_notes, warnings
from testbed.results.show.router_table import questions
from testbed.results.show.summary import ChangeFigures, FaultFigures, RecoveryFigures, Summary
from testbed.results.tables.columns import Requests
from testbed.results.tables.run import Run

_HERE = Path(__file__).parent
_PHASES = 12
_FAULTS = 24
_PARTS = 300
_PLACES = 24
_MAP_ZONES = 40
_ERRORS = 30
_EVENTS = 700
_REASONS = 14
_LATE = 12
_LINK_BARS = 12
_LINKS = 300
_MACHINES = 12
_DETAILS = 200


def page(summary: Summary, run: Run, requests: Requests) -> str:
    """The whole of `report.html`. `run.hops` are without those of strangers."""
    facts = run.facts
    parts = [phase for phase in summary.phases if phase.name not in ("warmup", ALL)]
    shown = parts[:_PHASES]
    faults = summary.faults[:_FAULTS]
    course = counted.course(requests, facts.end_s)
    end_s = max(facts.end_s, 1.0)
    span = plots.Span(end_s)
    traffic = counted.traffic(run, requests, shown)
    percentiles = counted.percentiles(requests, shown)
    links = counted.links(run.links)
    machines = counted.machines(run.machines, end_s)
    events = counted.happenings(run.events, _EVENTS)
    reasons = counted.moments_by_reason(run.events, _REASONS, end_s)
    late = counted.deliveries(run.pushes, _LATE)
    template = environment().get_template("report.html.jinja")
    return template.render(
        summary=summary,
        facts=facts,
        style=Markup(asset("style.css")),
        script=Markup(asset("script.js")),
        script_hash=script_hash(),
        warnings=warnings(summary),
        errors=summary.errors[:_ERRORS],
        more_errors=summary.errors[_ERRORS:],
        all=next((phase for phase in summary.phases if phase.name == ALL), None),
        steady=next((phase for phase in parts if phase.name == "steady"), None),
        parts=shown,
        more_phases=len(parts) - len(shown),
        maps=_maps(run, summary, traffic) if any(each.calls or each.entries for each in traffic) else [],
        map_legend=maps.legend(),
        heat=_heat(shown, [each.calls for each in traffic]),
        cell_heat=_heat(shown, counted.cell_calls(run, shown)),
        flows=traffic,
        ledgers=[
            (heading, about, table)
            for heading, about, table in (
                ("How far calls went, and what they would cost in 30 days", "distance", by_distance(summary)),
                ("Calls between pods by right", "right", by_right(summary)),
            )
            if table is not None
        ],
        questions=questions(summary),
        history=history_table(summary),
        leaders=leader_table(summary),
        course=course,
        course_data=course_data(course),
        lanes=plots.fault_lanes(faults, span),
        success=plots.success(course, faults, span) if course.bins else None,
        rate=plots.rate(course, faults, span) if course.bins else None,
        latency=plots.latency(course, faults, span) if any(each.ok for each in course.bins) else None,
        faults=faults,
        changes=(changes := _changes(faults)),
        parts_of_changes=(of_changes := _parts(changes))[:_PARTS],
        more_parts=len(of_changes) - _PARTS,
        more_faults=len(summary.faults) - len(faults),
        fault_notes=fault_notes(summary, _FAULTS),
        operation_steps=operation_steps(summary),
        changes_heading=changes_heading(summary),
        recovery=bars.recovery(faults) if faults else None,
        percentiles=[(plots.style(number), each) for number, each in enumerate(percentiles)],
        percentile_plot=plots.percentiles(percentiles) if percentiles else None,
        deliveries=late,
        late=bars.late(late.slowest) if late.slowest else None,
        links=links[:_LINKS],
        more_links=len(links) - _LINKS,
        link_bars=bars.links([link for link in links[:_LINK_BARS] if link.achieved_ms is not None])
        if any(link.achieved_ms is not None for link in links[:_LINK_BARS])
        else None,
        link_bars_number=min(len(links), _LINK_BARS),
        machines=[(plots.style(number), each) for number, each in enumerate(machines[:_MACHINES])],
        cpu=plots.cpu(machines[:_MACHINES], span) if machines else None,
        send_lag_ms=counted.send_lag_ms(requests),
        events=events,
        events_in_all=len(run.events),
        reasons=bars.moments(reasons, end_s) if reasons else None,
        details_length=_DETAILS,
    )


def _maps(run: Run, summary: Summary, traffic: Sequence[counted.Traffic]) -> list[tuple[PhaseStats, Markup, list[str]]]:
    """For each phase its map, and whom its fault hit."""
    atlas = _atlas(run, traffic)
    most_per_s = max(
        (
            flow.calls / (each.phase.end_s - each.phase.start_s)
            for each in traffic
            for flow in (*each.calls, *each.entries)
        ),
        default=0.0,
    )
    victims = {f"during {fault.name}": list(fault.victims or ()) for fault in summary.faults}
    stats = {phase.name: phase for phase in summary.phases}
    return [
        (
            stats[each.phase.name],
            maps.drawn(atlas, each, victims.get(each.phase.name, []), most_per_s),
            victims.get(each.phase.name, []),
        )
        for each in traffic
    ]


def _atlas(run: Run, traffic: Sequence[counted.Traffic]) -> maps.Atlas:
    """Zones of pods, and those that only calls or clients name."""
    region_of: dict[str, str] = {}
    nodes_of: dict[str, set[str]] = {}
    pods = run.pods.select(["zone", "region", "node"]).group_by(["zone", "region", "node"]).aggregate([])
    for pod in sorted(pods.to_pylist(), key=lambda pod: tuple(str(value) for value in pod.values())):
        if pod["zone"]:
            region_of.setdefault(pod["zone"], pod["region"] or "")
            nodes_of.setdefault(pod["zone"], set()).add(pod["node"] or "")
    named = {
        zone for each in traffic for flow in (*each.calls, *each.entries) for zone in (flow.source, flow.destination)
    }
    for zone in sorted(named - region_of.keys()):
        region_of[zone] = ""
    kept = dict(list(region_of.items())[:_MAP_ZONES])
    return maps.Atlas(kept, {zone: sorted(nodes - {""}) for zone, nodes in nodes_of.items()})


def _heat(phases: Sequence[Phase], flows: Sequence[Sequence[counted.Flow]]) -> dict[str, Any]:
    """Calls per second between places, of which only the busiest are shown where there are many."""
    busy: dict[str, int] = {}
    for flow in (flow for each in flows for flow in each):
        for place in {flow.source, flow.destination}:
            busy[place] = busy.get(place, 0) + flow.calls
    places = sorted(sorted(busy, key=lambda place: (-busy[place], place))[:_PLACES])
    cells = [
        (phase.name, phase.end_s - phase.start_s, {(flow.source, flow.destination): flow for flow in each})
        for phase, each in zip(phases, flows, strict=True)
    ]
    most = max((flow.calls / seconds for _, seconds, found in cells for flow in found.values()), default=0.0)
    return {"places": places, "more": len(busy) - len(places), "phases": cells, "most_per_s": most}


def _changes(faults: Sequence[FaultFigures]) -> list[tuple[str, float, ChangeFigures]]:
    found: list[tuple[str, float, ChangeFigures]] = []
    for fault in faults:
        found.append((fault.name, fault.applied_s, fault))
        if fault.heal is not None and fault.healed_s is not None:
            found.append((f"heal of {fault.name}", fault.healed_s, fault.heal))
    return found


def _parts(changes: Sequence[tuple[str, float, ChangeFigures]]) -> list[tuple[str, float, str, str, RecoveryFigures]]:
    """Of each change: by what, which part, and its figures."""
    return [
        (change, at_s, by, name, part)
        for change, at_s, figures_of in changes
        for by, parts in figures_of.by.items()
        for name, part in parts.items()
    ]


def course_data(course: counted.Course) -> dict[str, Any]:
    """What the script shows under the pointer."""
    rounded = [[None if value is None else round(value, 2) for value in asdict(each).values()] for each in course.bins]
    return {"width_s": course.width_s, "bins": rounded}


@cache
def environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([_HERE, _HERE.parent / "live"]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: Mapping[str, Any] = {
        "seconds": figures.seconds,
        "since": figures.since,
        "share": figures.share,
        "ms": figures.milliseconds,
        "count": figures.count,
        "short": figures.short_count,
        "rate": figures.rate,
        "volume": figures.volume,
        "cut": figures.cut,
    }
    environment.filters.update(filters)
    return environment


@cache
def asset(name: str) -> str:
    return (_HERE / name).read_text()


def script_hash() -> str:
    """By which the page's own policy knows its script: no other runs, whatever names and errors hold."""
    return b64encode(sha256(asset("script.js").encode()).digest()).decode()
