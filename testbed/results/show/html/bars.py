"""Rows of bars: how faults went, who acknowledged late, what links made of their declaration, what happened when."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from markupsafe import Markup

from testbed.results.show.figures import cut, milliseconds, plain, seconds
from testbed.results.show.html.counted import Delivery, LinkFigures
from testbed.results.show.html.svg import Linear, Log, Scale, percent, tag, title
from testbed.results.show.remarks import in_words
from testbed.results.show.summary import ChangeFigures, EntryFigures, FaultFigures

_LANE_PX = 16
_MOVES = 8
_ROOM = 1.22
"""Of a scale, so that a figure has room behind the longest bar."""
_VISIBLE = 0.3
"""Percent of the width; what is narrower is drawn 2 px wide."""
STEPS = (
    ("detected_s", "detect", "unnoticed"),
    ("decided_s", "decide", "noticed, not decided"),
    ("pushed_s", "push", "decided, not pushed"),
    ("propagated_s", "last ACK", "on its way to proxies"),
)
"""Of a ControlPath: the field, its name, and the time before it."""


def rows(lines: Iterable[tuple[str, str, Markup]], axis: Markup) -> Markup:
    """A row for each: name, what to say of it below, drawing."""
    parts = [
        tag("div", tag("div", tag("span", cut(name, 64)), tag("small", note), class_="name"), drawing, class_="row")
        for name, note, drawing in lines
    ]
    return tag("div", *parts, tag("div", tag("div", class_="name"), axis, class_="row axis"), class_="bars")


def axis(scale: Scale, ticks: Sequence[tuple[float, str]]) -> Markup:
    labels = []
    for value, text in ticks:
        share = scale.share(value)
        anchor = "start" if share < 0.03 else "end" if share > 0.97 else "middle"
        labels.append(tag("text", text, x=percent(scale, value), y=12, text_anchor=anchor))
    return tag("svg", *labels, height=16, aria_hidden="true")


def recovery(faults: Sequence[FaultFigures], never: str = "never") -> Markup:
    """Lanes for each fault and each heal, on one scale: what clients saw, how they found another gateway, and what the
    control plane did. `never` is what to say of clients that have not recovered."""
    changes: list[tuple[str, float, ChangeFigures]] = []
    for fault in faults:
        changes.append((fault.name, fault.applied_s, fault))
        if fault.heal is not None and fault.healed_s is not None:
            changes.append((f"heal of {fault.name}", fault.healed_s, fault.heal))
    longest_s = max([0.1, *(max(_times(at_s, change)) for _, at_s, change in changes)])
    scale = Linear(0.0, longest_s * _ROOM)
    ticks = [(tick, "0" if tick == 0 else f"+{plain(round(tick, 6))} s") for tick in scale.ticks()]
    lines = [(name, _when(at_s, change), _lanes(scale, at_s, change, never)) for name, at_s, change in changes]
    return rows(lines, axis(scale, ticks))


def _when(at_s: float, change: ChangeFigures) -> str:
    lost = 0 if change.entry is None else change.entry.errors.all
    return f"at {at_s:.2f} s" + (f", {lost} of {change.errors.all} errors at entry" if lost else "")


def _times(at_s: float, change: ChangeFigures) -> Iterator[float]:
    yield 0.0
    moved_s = None if change.entry is None else change.entry.moved_s
    for when_s in (change.first_error_s, change.last_error_s, moved_s):
        if when_s is not None:
            yield when_s - at_s
    if change.time_to_recover_s is not None:
        yield change.time_to_recover_s
    for field, _, _ in STEPS:
        if (step_s := getattr(change.control_path, field)) is not None:
            yield step_s


def _lanes(scale: Linear, at_s: float, change: ChangeFigures, never: str) -> Markup:
    height = (2 if change.entry is None else 3) * _LANE_PX + 6
    parts = [_grid(scale, height)]
    parts += _suffered(scale, at_s, change, never)
    if change.entry is not None:
        parts += _entered(scale, at_s, change.entry)
    parts += _followed(scale, change, height - _LANE_PX - 1)
    return tag("svg", *parts, height=height, role="img")


def _grid(scale: Scale, height: int) -> Markup:
    lines = [
        tag("line", class_="grid", x1=percent(scale, tick), x2=percent(scale, tick), y1=0, y2=height)
        for tick in scale.ticks()
    ]
    return Markup("").join(lines)


def _suffered(scale: Linear, at_s: float, change: ChangeFigures, never: str) -> Iterator[Markup]:
    first_s, last_s, errors = change.first_error_s, change.last_error_s, change.errors
    well_s = change.time_to_recover_s
    if first_s is not None and last_s is not None:
        start_s, end_s = max(0.0, first_s - at_s), max(0.0, last_s - at_s)
        text = (
            f"clients: {errors.failed} failed, {errors.unknown} unknown\n"
            f"first error {seconds(start_s)}, last error {seconds(end_s)} after the change"
        )
        yield _bar(scale, start_s, end_s, 1, "suffered", text)
    if well_s is not None and (well_s > 0 or first_s is not None):
        yield _mark(scale, well_s, 1, "well", f"recovered {seconds(well_s)} after the change")
        yield _figure(scale, max(well_s, (last_s or at_s) - at_s), seconds(well_s), 13)
    if well_s is None:
        yield _figure(scale, max(0.0, (last_s or at_s) - at_s), never, 13, "bad")
    elif first_s is None:
        yield tag("text", "no errors", class_="note", x=6, y=13)


def _entered(scale: Linear, at_s: float, entry: EntryFigures) -> Iterator[Markup]:
    start_s, end_s = max(0.0, entry.began_s - at_s), max(0.0, entry.moved_s - at_s)
    lines = [in_words(move, at_s) for move in entry.moves[:_MOVES]]
    lines += [f"and {len(entry.moves) - _MOVES} more zones"] if len(entry.moves) > _MOVES else []
    yield _bar(scale, start_s, end_s, _LANE_PX + 2, "entered", "\n".join(lines))
    yield _figure(scale, end_s, seconds(end_s), _LANE_PX + 14)


def _followed(scale: Linear, change: ChangeFigures, top: int) -> Iterator[Markup]:
    before_s = 0.0
    nothing = True
    for number, (field, name, until) in enumerate(STEPS):
        step_s: float | None = getattr(change.control_path, field)
        if step_s is None:
            continue
        nothing = False
        text = f"{name}: {seconds(step_s)} after the change\n{until} for {seconds(max(0.0, step_s - before_s))}"
        # A sign can come later than the decision that another one led to.
        yield _bar(scale, min(before_s, step_s), step_s, top, f"step s{number}", text)
        before_s = max(before_s, step_s)
    if not nothing:
        yield _figure(scale, before_s, seconds(before_s), top + 11)
    else:
        yield tag("text", "the control plane noticed nothing", class_="note", x=6, y=top + 12)


def _bar(scale: Scale, start: float, end: float, y: float, class_: str, text: str) -> Markup:
    x, share = percent(scale, start), (scale.share(end) - scale.share(start)) * 100
    width: object = f"{share:.2f}%" if share > _VISIBLE else 2
    return tag("rect", title(text), class_=class_, x=x, y=y, width=width, height=_LANE_PX - 2)


def _figure(scale: Scale, at: float, text: str, y: int, class_: str | None = None) -> Markup:
    return tag("text", text, class_=class_, x=percent(scale, at), y=y, dx=7)


def _mark(scale: Scale, at: float, y: float, class_: str, text: str) -> Markup:
    return tag("rect", title(text), class_=class_, x=percent(scale, at), y=y - 1, width=4, height=_LANE_PX)


def late(deliveries: Sequence[Delivery]) -> Markup:
    longest_ms = max(each.took_ms or 0.0 for each in deliveries)
    scale = Linear(0.0, max(longest_ms, 0.01) * 1.02)
    lines = []
    for each in deliveries:
        took_ms = each.took_ms or 0.0
        text = (
            f"{each.proxy}\n{each.type} {each.version}\nsent at {each.sent_s:.3f} s, ACK after {milliseconds(took_ms)}"
        )
        bar = tag("svg", _grid(scale, 20), _bar(scale, 0.0, took_ms, 3, "took", text), height=20, role="img")
        lines.append((each.proxy, f"{each.type} at {each.sent_s:.2f} s", bar))
    return rows(lines, axis(scale, [(tick, f"{plain(round(tick, 6))} ms") for tick in scale.ticks(4)]))


def links(figures: Sequence[LinkFigures]) -> Markup:
    """From what was to be expected to what was achieved; whiskers reach to the worst p99."""
    values = [
        value
        for link in figures
        for value in (link.declared_ms, link.expected_ms, link.achieved_ms, link.p99_ms)
        if value is not None
    ]
    scale = Log.around(max(value, 0.01) for value in values)
    lines = [(f"{link.source} → {link.destination}", "", _link(scale, link)) for link in figures]
    return rows(lines, axis(scale, [(tick, f"{plain(round(tick, 6))} ms") for tick in scale.ticks(5)]))


def _link(scale: Log, link: LinkFigures) -> Markup:
    text = (
        f"{link.source} → {link.destination}\ndeclared {milliseconds(link.declared_ms)}, to be expected "
        f"{milliseconds(link.expected_ms)}\nachieved p50 {milliseconds(link.achieved_ms)}, "
        f"worst p99 {milliseconds(link.p99_ms)}"
    )
    parts = [_grid(scale, 22)]
    if link.achieved_ms is not None and link.p99_ms is not None:
        x1, x2 = percent(scale, link.achieved_ms), percent(scale, link.p99_ms)
        parts.append(tag("line", title(text), class_="whisker", x1=x1, x2=x2, y1=11, y2=11))
    if link.declared_ms is not None:
        x = percent(scale, link.declared_ms)
        parts.append(tag("line", title(text), class_="declared", x1=x, x2=x, y1=3, y2=19))
    if link.expected_ms is not None:
        parts.append(tag("circle", title(text), class_="expected", cx=percent(scale, link.expected_ms), cy=11, r=5.5))
    if link.achieved_ms is not None:
        parts.append(tag("circle", title(text), class_="achieved", cx=percent(scale, link.achieved_ms), cy=11, r=3))
    return tag("svg", *parts, height=22, role="img")


def moments(found: Mapping[str, tuple[int, list[float]]], end_s: float) -> Markup:
    """A tick for each time at which something happened, a row for each reason."""
    scale = Linear(0.0, max(end_s, 1.0))
    lines = []
    for reason, (number, times_s) in found.items():
        ticks = [_tick(scale, t_s, f"{reason} at {t_s:.2f} s") for t_s in times_s]
        lines.append(
            (reason, f"{number} times" if number > 1 else "once", tag("svg", _grid(scale, 20), *ticks, height=20))
        )
    return rows(lines, axis(scale, [(tick, f"{plain(tick)} s") for tick in scale.ticks()]))


def _tick(scale: Scale, at: float, text: str) -> Markup:
    return tag("rect", title(text), class_="tick", x=percent(scale, at), y=3, width=2, height=14)
