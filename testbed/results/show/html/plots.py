"""Plots over time, with faults shaded, and of latency by percentile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log10

from markupsafe import Markup

from testbed.results.show.figures import cut, plain, seconds, short_count
from testbed.results.show.html.counted import Course, Machine, Percentiles
from testbed.results.show.html.svg import Axis, Linear, Log, Plot, percent, tag, title
from testbed.results.show.summary import FaultFigures

COLOURS = 6
"""Lines that can be told apart by colour; as many more by dashes."""
_LANES = 10
_LANE_PX = 18
_PERCENTS = (0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999)


@dataclass(frozen=True, slots=True)
class Span:
    """What time is shown: up to `end_s`, of which only what is before `now_s` has happened yet, if there is one."""

    end_s: float
    now_s: float | None = None

    @property
    def known_s(self) -> float:
        return self.end_s if self.now_s is None else min(self.now_s, self.end_s)

    @property
    def never(self) -> str:
        return "never" if self.now_s is None else "not yet"


def _time(span: Span) -> Axis:
    scale = Linear(0.0, max(span.end_s, 1.0))
    ticks = scale.ticks(8)
    return Axis(scale, [(tick, f"{plain(round(tick, 6))} s") for tick in ticks])


def fault_lanes(faults: Sequence[FaultFigures], span: Span) -> Markup | None:
    """A bar for each fault, from when it came until its heal, above the plots that they shade."""
    if not faults:
        return None
    scale = _time(span).scale
    free_s = [0.0] * _LANES
    parts = []
    lanes = 0
    for fault in sorted(faults, key=lambda fault: fault.applied_s):
        until_s = min(span.known_s if fault.healed_s is None else fault.healed_s, span.end_s)
        lane = next((lane for lane in range(_LANES) if free_s[lane] <= fault.applied_s), None)
        if lane is None:
            continue
        lanes = max(lanes, lane + 1)
        share = scale.share(fault.applied_s)
        # Its name takes room, too.
        free_s[lane] = max(until_s, fault.applied_s + span.end_s * 0.012 * (len(cut(fault.name, 40)) + 2))
        y = lane * _LANE_PX
        width = f"{(scale.share(until_s) - share) * 100:.2f}%"
        text = _fault_text(fault, span)
        x = percent(scale, fault.applied_s)
        bar = tag("rect", title(text), class_="fault", x=x, y=y + 2, width=width, height=_LANE_PX - 4, rx=2)
        edge = tag("rect", title(text), class_="fault-edge", x=x, y=y + 2, width=3, height=_LANE_PX - 4)
        at_end = share > 0.75
        label = tag(
            "text",
            cut(fault.name, 40),
            x=x,
            y=y + 13,
            dx=-5 if at_end else 7,
            text_anchor="end" if at_end else "start",
        )
        parts += [bar, edge, label]
    drawing = tag("svg", *parts, class_="plot", height=lanes * _LANE_PX, role="img", aria_label="Faults over time")
    return tag("div", tag("div", class_="y-axis"), drawing, class_="chart lanes")


def _fault_text(fault: FaultFigures, span: Span) -> str:
    healed = f"{span.never} healed" if fault.healed_s is None else f"healed at {fault.healed_s:.2f} s"
    well = fault.time_to_recover_s
    recovered = f"clients {span.never} recovered" if well is None else f"clients recovered after {seconds(well)}"
    return f"{fault.name}\ncame at {fault.applied_s:.2f} s, {healed}\n{recovered}"


def _shades(plot: Plot, faults: Sequence[FaultFigures], span: Span) -> list[Markup]:
    """Faults as bands, and darker the time until clients had recovered from them or their heals."""
    parts = []
    for fault in faults:
        until_s = span.known_s if fault.healed_s is None else fault.healed_s
        parts.append(plot.band(fault.applied_s, until_s, "band", _fault_text(fault, span)))
    for fault in faults:
        until_s = span.known_s if fault.healed_s is None else fault.healed_s
        well_s = until_s if fault.recovered_s is None else fault.recovered_s
        if well_s > fault.applied_s:
            parts.append(plot.band(fault.applied_s, well_s, "band ill", _fault_text(fault, span)))
        parts.append(plot.upright(fault.applied_s, "change", f"{fault.name} came"))
        if fault.heal is not None and fault.healed_s is not None:
            well_s = span.known_s if fault.heal.recovered_s is None else fault.heal.recovered_s
            if well_s > fault.healed_s:
                parts.append(
                    plot.band(fault.healed_s, well_s, "band ill", f"not recovered from the heal of {fault.name}")
                )
            parts.append(plot.upright(fault.healed_s, "change heal", f"heal of {fault.name}"))
    return parts


def success(course: Course, faults: Sequence[FaultFigures], span: Span) -> Markup:
    shares = [each.ok / each.sent for each in course.bins if each.sent]
    low = 0.0 if not shares or min(shares) < 0.9 else 0.9 if min(shares) < 0.99 else 0.99
    scale = Linear(low, 1.0)
    plot = Plot(_time(span), Axis(scale, [(tick, f"{plain(round(tick * 100, 4))} %") for tick in scale.ticks(4)]))
    half = course.width_s / 2
    points = [(each.start_s + half, each.ok / each.sent if each.sent else None) for each in course.bins]
    return plot.drawn(_shades(plot, faults, span), [plot.line(points, "ok")], aria_label="Success rate over time")


def rate(course: Course, faults: Sequence[FaultFigures], span: Span) -> Markup:
    """Steps: ok, and on top of it failed and unknown."""
    width_s = course.width_s
    most = max([1.0, *(each.sent / width_s for each in course.bins)])
    scale = Linear(0.0, most * 1.05)
    plot = Plot(_time(span), Axis(scale, [(tick, f"{short_count(tick)}/s") for tick in scale.ticks(3)]), 90)
    layers: list[tuple[str, list[tuple[float, float, float]]]] = [("ok", []), ("unknown", []), ("failed", [])]
    for each in course.bins:
        low = 0.0
        for (_, edges), number in zip(layers, (each.ok, each.unknown, each.failed), strict=True):
            edges.append((each.start_s, low, low + number / width_s))
            low += number / width_s
    areas = [plot.area(edges, width_s, f"area {name}") for name, edges in layers]
    return plot.drawn(_shades(plot, faults, span), areas, aria_label="Requests per second by outcome over time")


def latency(course: Course, faults: Sequence[FaultFigures], span: Span) -> Markup:
    values = [ms for each in course.bins for ms in (each.p50_ms, each.p99_ms) if ms is not None]
    scale = Log.around(values)
    plot = Plot(_time(span), _milliseconds(scale))
    half = course.width_s / 2
    p50 = [(each.start_s + half, each.p50_ms) for each in course.bins]
    p99 = [(each.start_s + half, each.p99_ms) for each in course.bins]
    lines = [plot.line(p99, "p99"), plot.line(p50, "p50")]
    return plot.drawn(_shades(plot, faults, span), lines, aria_label="Latency of ok requests over time")


def _milliseconds(scale: Log) -> Axis:
    ticks = scale.ticks(5)
    return Axis(scale, [(tick, f"{plain(round(tick, 6))} ms") for tick in ticks])


def percentiles(found: Sequence[Percentiles]) -> Markup:
    """Latency by percentile, with as much room for every further nine: the tail is what policies change."""
    most = max(each.requests for each in found)
    nines = Linear(0.0, max(1.0, max(_nines(each.points[-1][0]) for each in found)))
    ticks = [(_nines(at), f"{plain(round(at * 100, 4))} %") for at in _PERCENTS if at == 0.0 or at < 1 - 0.5 / most]
    scale = Log.around(ms for each in found for _, ms in each.points)
    plot = Plot(Axis(nines, [tick for tick in ticks if tick[0] <= nines.high]), _milliseconds(scale), 240)
    uprights = [plot.upright(value, "grid", text) for value, text in ticks if value <= nines.high]
    lines = [
        plot.line([(_nines(at), ms) for at, ms in each.points], style(number), each.phase)
        for number, each in enumerate(found)
    ]
    return plot.drawn(uprights, lines, aria_label="Latency by percentile and phase")


def style(number: int) -> str:
    return f"c{number % COLOURS}" + (" dashed" if number // COLOURS % 2 else "")


def _nines(share: float) -> float:
    return -log10(max(1 - share, 1e-9))


def cpu(machines: Sequence[Machine], span: Span) -> Markup:
    scale = Linear(0.0, 100.0)
    plot = Plot(_time(span), Axis(scale, [(tick, f"{tick:g} %") for tick in (0.0, 50.0, 100.0)]), 90)
    lines = [plot.line(each.cpu, style(number), each.name) for number, each in enumerate(machines)]
    return plot.drawn([], lines, aria_label="CPU over time")
