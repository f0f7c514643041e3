"""A row for each variant, with a dot for each of its runs, on one scale."""

from __future__ import annotations

from collections.abc import Sequence
from math import isinf

from markupsafe import Markup

from testbed.results.compare.comparison import Place, Ranking
from testbed.results.compare.runs import Unit
from testbed.results.compare.wording import figure, verdict
from testbed.results.show.figures import plain
from testbed.results.show.html.bars import axis, rows
from testbed.results.show.html.svg import Linear, percent, tag, title

_HEIGHT_PX = 26
_ROOM = 0.08
"""Of the span of all values, on both sides of them."""
_FACTORS: dict[Unit, tuple[float, str]] = {"s": (1.0, " s"), "ms": (1.0, " ms"), "share": (100.0, " %")}


def strips(ranking: Ranking) -> Markup:
    """Runs that never recovered are at the right end of the scale."""
    unit = ranking.metric.unit
    scale, never = _scale([value for place in ranking.places for value in place.values])
    factor, name = _FACTORS.get(unit, (1.0, ""))
    ticks = [(tick, f"{plain(round(tick * factor, 6))}{name}") for tick in scale.ticks(5)]
    lines = [
        (place.variant, verdict(place) or "best median", _strip(scale, ticks, never, place, unit))
        for place in ranking.places
    ]
    return rows(lines, axis(scale, ticks))


def _scale(values: Sequence[float]) -> tuple[Linear, float]:
    """With where a run is drawn that never recovered."""
    finite = [value for value in values if not isinf(value)] or [0.0]
    low, high = min(finite), max(finite)
    span = high - low or abs(high) or 1.0
    never = high + span * 3 * _ROOM
    return Linear(low - span * _ROOM, (never if any(map(isinf, values)) else high) + span * _ROOM), never


def _strip(scale: Linear, ticks: Sequence[tuple[float, str]], never: float, place: Place, unit: Unit) -> Markup:
    middle = _HEIGHT_PX / 2
    parts = [
        tag("line", class_="grid", x1=percent(scale, tick), x2=percent(scale, tick), y1=0, y2=_HEIGHT_PX)
        for tick, _ in ticks
    ]
    where = [never if isinf(value) else value for value in place.values]
    if len(where) > 1:
        x1, x2 = percent(scale, min(where)), percent(scale, max(where))
        parts.append(tag("line", class_="whisker", x1=x1, x2=x2, y1=middle, y2=middle))
    for value, at in zip(place.values, where, strict=True):
        class_ = "run never" if isinf(value) else "run"
        text = f"{place.variant}: {figure(value, unit)}"
        parts.append(tag("circle", title(text), class_=class_, cx=percent(scale, at), cy=middle, r=4.5))
    x = percent(scale, never if isinf(place.median) else place.median)
    told = f"median of {place.variant}: {figure(place.median, unit)}"
    parts.append(tag("line", title(told), class_="declared", x1=x, x2=x, y1=3, y2=_HEIGHT_PX - 3))
    return tag("svg", *parts, height=_HEIGHT_PX, role="img")
