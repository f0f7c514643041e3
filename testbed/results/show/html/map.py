"""The map of one phase: regions, zones, nodes and clients, with what flowed between them.

Zones stand on a circle, those of a region beside each other. In-zone calls are the ring around a zone, calls to another
an arrow, clients' requests the line from the small circle outside. Thickness is rate, colour is share of errors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import cos, hypot, pi, sin, sqrt

from markupsafe import Markup

from testbed.results.show.figures import count, cut, rate, share
from testbed.results.show.html.counted import Flow, Traffic
from testbed.results.show.html.svg import tag, title

_WIDTH, _HEIGHT = 380.0, 350.0
_CENTRE = (_WIDTH / 2, _HEIGHT / 2)
_FLOWS = 60
"""Of the largest flows so many are drawn; the table has more."""
_NODES = 24
"""Of a zone, at most."""
_NODES_IN_ALL = 200
_THICKEST_PX = 11.0
_CLIENTS_PX = 26.0
"""How far outside of their zone clients are drawn."""
_LEVELS = ((0.0, "none"), (0.01, "below 1 %"), (0.1, "1 to 10 %"), (1.0, "10 % and more"))
"""Shares of errors, up to these, as they are coloured."""


@dataclass(frozen=True, slots=True)
class Atlas:
    """What was where, in the whole run: region and nodes of every zone."""

    region_of: Mapping[str, str]
    nodes_of: Mapping[str, Sequence[str]]

    @property
    def zones(self) -> list[str]:
        return sorted(self.region_of, key=lambda zone: (self.region_of[zone], zone))


@dataclass(frozen=True, slots=True)
class _Spot:
    x: float
    y: float
    angle: float
    radius: float


def level(failed_share: float) -> int:
    if failed_share <= 0:
        return 0
    return 1 + sum(failed_share >= bound for bound, _ in _LEVELS[1:3])


def legend() -> list[tuple[int, str]]:
    return [(number, text) for number, (_, text) in enumerate(_LEVELS)]


def drawn(atlas: Atlas, traffic: Traffic, victims: Sequence[str], most_per_s: float) -> Markup:
    """`most_per_s` is the rate of the largest flow of all phases, the thickest line; `victims` are what was hit."""
    spots = _spots(atlas)
    seconds = traffic.phase.end_s - traffic.phase.start_s

    def thickness(calls: int) -> float:
        return max(1.0, _THICKEST_PX * sqrt(calls / seconds / most_per_s)) if most_per_s > 0 else 1.0

    shown = [flow for flow in traffic.calls if flow.source in spots and flow.destination in spots][:_FLOWS]
    entries = [flow for flow in traffic.entries if flow.source in spots and flow.destination in spots][:_FLOWS]
    flows = [_described(flow, "calls", seconds) for flow in shown]
    top, bottom = _height(spots, regions=len(set(atlas.region_of.values())))
    return tag(
        "svg",
        *_regions(atlas, spots),
        *(_entry(spots, flow, thickness(flow.calls), _described(flow, "requests", seconds)) for flow in entries),
        *(_clients(spots[zone], zone) for zone in sorted({flow.source for flow in entries})),
        *(_zone(spots[zone], zone) for zone in atlas.zones),
        *(_flow(spots, flow, thickness(flow.calls), text) for flow, text in zip(shown, flows, strict=True)),
        *(each for zone in atlas.zones for each in _nodes(atlas, spots[zone], zone, traffic, victims)),
        class_="map",
        viewBox=f"0 {top:.0f} {_WIDTH:g} {bottom - top:.0f}",
        role="img",
        aria_label=f"Map of calls, {traffic.phase.name}",
    )


def _spots(atlas: Atlas) -> dict[str, _Spot]:
    zones = atlas.zones
    ring = 0.0 if len(zones) == 1 else 98.0
    room = 40.0 if len(zones) < 3 else min(40.0, pi * ring / len(zones) * 0.62)
    start = pi if len(zones) == 2 else -pi / 2
    spots = {}
    for index, zone in enumerate(zones):
        angle = start + 2 * pi * index / len(zones)
        spots[zone] = _Spot(_CENTRE[0] + ring * cos(angle), _CENTRE[1] + ring * sin(angle), angle, room)
    return spots


def _height(spots: Mapping[str, _Spot], regions: int) -> tuple[float, float]:
    """From where to where there is something to see."""
    if regions > 1:
        return 0.0, _HEIGHT
    reach = [spot.radius + _CLIENTS_PX + 12 for spot in spots.values()]
    top = min(spot.y - far for spot, far in zip(spots.values(), reach, strict=True))
    return top, max(spot.y + far for spot, far in zip(spots.values(), reach, strict=True))


def _outside(spot: _Spot, distance: float) -> tuple[float, float]:
    return spot.x + cos(spot.angle) * distance, spot.y + sin(spot.angle) * distance


def _regions(atlas: Atlas, spots: Mapping[str, _Spot]) -> Iterator[Markup]:
    """A line around the zones of each region, with its name; one region alone is named in a corner."""
    regions: dict[str, list[_Spot]] = {}
    for zone in atlas.zones:
        regions.setdefault(atlas.region_of[zone], []).append(spots[zone])
    if len(regions) == 1:
        (name,) = regions
        yield tag("text", cut(name, 24), class_="region", x=2, y=_height(spots, 1)[0] + 14)
        return
    radius, half = 168.0, pi / len(spots) * 0.86
    for name, members in regions.items():
        first, last = members[0].angle - half, members[-1].angle + half
        a, b = (_CENTRE[0] + radius * cos(first), _CENTRE[1] + radius * sin(first)), last
        end = (_CENTRE[0] + radius * cos(b), _CENTRE[1] + radius * sin(b))
        large = int(last - first > pi)
        path = f"M{a[0]:.1f} {a[1]:.1f}A{radius:g} {radius:g} 0 {large} 1 {end[0]:.1f} {end[1]:.1f}"
        yield tag("path", title(f"region {name}"), class_="region", d=path)
        middle = (first + last) / 2
        x, y = _CENTRE[0] + (radius + 8) * cos(middle), _CENTRE[1] + (radius + 8) * sin(middle)
        y = min(max(y + 4, 12.0), _HEIGHT - 4)
        anchor = "end" if x > _WIDTH * 0.7 else "start" if x < _WIDTH * 0.3 else "middle"
        yield tag("text", cut(name, 24), class_="region", x=min(max(x, 4.0), _WIDTH - 4), y=y, text_anchor=anchor)


def _zone(spot: _Spot, zone: str) -> Markup:
    shape = tag("circle", title(f"zone {zone}"), class_="zone", cx=spot.x, cy=spot.y, r=spot.radius)
    name = cut(zone, 16)
    # Letters are about 0.6 of their height wide, and the ring takes a part of the room.
    size = max(6.5, min(13.0, (spot.radius - _THICKEST_PX / 2) * 3.0 / max(len(name), 1)))
    label = tag("text", name, class_="zone", x=spot.x, y=spot.y - spot.radius * 0.2, style=f"font-size:{size:.1f}px")
    return Markup("").join((shape, label))


def _nodes(atlas: Atlas, spot: _Spot, zone: str, traffic: Traffic, victims: Sequence[str]) -> Iterator[Markup]:
    nodes = atlas.nodes_of.get(zone, ())[: min(_NODES, _NODES_IN_ALL // len(atlas.region_of))]
    columns = max(1, min(len(nodes), 6 if len(nodes) > 8 else 4))
    side = max(3.0, min(9.0, spot.radius * 1.2 / columns - 2))
    seconds = traffic.phase.end_s - traffic.phase.start_s
    for index, node in enumerate(nodes):
        row, column = divmod(index, columns)
        in_row = min(columns, len(nodes) - row * columns)
        x = spot.x + (column - in_row / 2) * (side + 2) + 1
        y = spot.y + spot.radius * 0.05 + row * (side + 2)
        hit = node in victims
        what = "hit by the fault" if hit else "node"
        calls = traffic.calls_by_node.get(node, 0)
        text = f"{what}: {node}\n{count(calls)} calls to its pods, {rate(calls / seconds)}"
        yield tag("rect", title(text), class_="node hit" if hit else "node", x=x, y=y, width=side, height=side, rx=1.5)


def _clients(spot: _Spot, zone: str) -> Markup:
    x, y = _outside(spot, spot.radius + _CLIENTS_PX)
    return tag("circle", title(f"clients of {zone}"), class_="clients", cx=x, cy=y, r=5.5)


def _entry(spots: Mapping[str, _Spot], flow: Flow, width: float, text: str) -> Markup:
    x, y = _outside(spots[flow.source], spots[flow.source].radius + _CLIENTS_PX)
    to = spots[flow.destination]
    length = hypot(to.x - x, to.y - y) or 1.0
    reach = (length - to.radius) / length
    path = f"M{x:.1f} {y:.1f}L{x + (to.x - x) * reach:.1f} {y + (to.y - y) * reach:.1f}"
    return tag("path", title(text), class_=f"flow entry e{level(flow.failed_share)}", d=path, stroke_width=width)


def _flow(spots: Mapping[str, _Spot], flow: Flow, width: float, text: str) -> Markup:
    of, to = spots[flow.source], spots[flow.destination]
    style = f"flow e{level(flow.failed_share)}"
    if of == to:
        return tag("circle", title(text), class_=style, cx=of.x, cy=of.y, r=of.radius, stroke_width=width)
    dx, dy = to.x - of.x, to.y - of.y
    length = hypot(dx, dy)
    ux, uy = dx / length, dy / length
    # To the right of the way, so that both directions can be seen.
    bend = min(26.0, length * 0.16)
    middle = (of.x + dx / 2 - uy * bend, of.y + dy / 2 + ux * bend)
    start = _towards(of, middle, of.radius + 2)
    tip, head = _towards(to, middle, to.radius + 2), 4 + width
    base = _towards(to, middle, to.radius + 2 + head)
    side_x, side_y = (tip[1] - base[1]) / head, (base[0] - tip[0]) / head
    half = 3 + width / 2
    line = f"M{start[0]:.1f} {start[1]:.1f}Q{middle[0]:.1f} {middle[1]:.1f} {base[0]:.1f} {base[1]:.1f}"
    arrow = (
        f"M{tip[0]:.1f} {tip[1]:.1f}L{base[0] + side_x * half:.1f} {base[1] + side_y * half:.1f}"
        f"L{base[0] - side_x * half:.1f} {base[1] - side_y * half:.1f}Z"
    )
    return tag(
        "g",
        title(text),
        tag("path", class_="shaft", d=line, stroke_width=width),
        tag("path", class_="head", d=arrow),
        class_=style,
    )


def _towards(spot: _Spot, point: tuple[float, float], distance: float) -> tuple[float, float]:
    length = hypot(point[0] - spot.x, point[1] - spot.y) or 1.0
    return spot.x + (point[0] - spot.x) / length * distance, spot.y + (point[1] - spot.y) / length * distance


def _described(flow: Flow, what: str, seconds: float) -> str:
    way = (
        f"clients of {flow.source} → {flow.destination}"
        if what == "requests"
        else f"{flow.source} → {flow.destination}"
    )
    lines = [way, f"{count(flow.calls)} {what}, {rate(flow.calls / seconds)}"]
    not_ok = "not ok" if what == "requests" else "failed"
    lines.append(f"{count(flow.failed)} {not_ok} ({share(flow.failed_share)})" if flow.failed else f"none {not_ok}")
    if flow.failed_tries:
        lines.append(f"{count(flow.failed_tries)} failed tries")
    return "\n".join(lines)
