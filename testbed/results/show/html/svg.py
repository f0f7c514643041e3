"""Drawing: tags, scales, and plots that are as wide as the page gives them.

What is drawn over time or another axis has x in percent, so that text never scales with the width; paths, which know no
percent, are in a nested view of `_VIEW` units that is stretched. Every text is escaped here, wherever it comes from.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

from markupsafe import Markup, escape

_VIEW = 1000
_STEPS = (1, 2, 5, 10)
_X_LABELS_PX = 18
_TOP_PX = 8


def tag(name: str, *children: object, **attributes: object) -> Markup:
    """An element; children that are no Markup are text. `class_` is `class`, `_` in other names is `-`; attributes of
    None are left out, numbers are rounded to a hundredth."""
    parts = [
        f'{key.rstrip("_").replace("_", "-")}="{escape(_attribute(value))}"'
        for key, value in attributes.items()
        if value is not None
    ]
    start = " ".join([name, *parts])
    return Markup(f"<{start}>{''.join(map(str, map(escape, children)))}</{name}>")


def _attribute(value: object) -> object:
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return value


def title(text: str) -> Markup:
    """What is shown when the pointer is over the element that this is the first child of."""
    return tag("title", text)


@dataclass(frozen=True, slots=True)
class Linear:
    """From `low` to `high`, which differ."""

    low: float
    high: float

    def share(self, value: float) -> float:
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))

    def ticks(self, number: int = 6) -> list[float]:
        """About so many round values, both ends included where they are round."""
        rough = (self.high - self.low) / number
        scale = 10.0 ** floor(log10(rough))
        step = next(each * scale for each in _STEPS if each * scale >= rough * 0.999)
        first, last = ceil(self.low / step - 1e-9), floor(self.high / step + 1e-9)
        return [at * step for at in range(first, last + 1)]


@dataclass(frozen=True, slots=True)
class Log:
    """Decades; `low` and `high` are positive and differ."""

    low: float
    high: float

    @classmethod
    def around(cls, values: Iterable[float]) -> Log:
        """From the 1-2-5 step below the smallest positive value to that above the largest."""
        positive = [value for value in values if value > 0] or [1.0]
        low = max(step for step in _steps(min(positive)) if step <= min(positive) * 1.001)
        high = min(step for step in _steps(max(positive)) if step >= max(positive) * 0.999)
        return cls(low, high if high > low else low * 10)

    def share(self, value: float) -> float:
        if value <= self.low:
            return 0.0
        return min(1.0, log10(value / self.low) / log10(self.high / self.low))

    def ticks(self, number: int = 6) -> list[float]:
        """Steps of 1, 2 and 5, or only decades where these are many."""
        exponents = range(floor(log10(self.low)), ceil(log10(self.high)) + 1)
        for steps in ((1, 2, 5), (1,)):
            ticks = [step * 10.0**exponent for exponent in exponents for step in steps]
            ticks = [tick for tick in ticks if self.low * 0.999 <= tick <= self.high * 1.001]
            if len(ticks) <= number:
                break
        return ticks


def _steps(value: float) -> list[float]:
    """Those of its decade."""
    decade = 10.0 ** floor(log10(value))
    return [step * decade for step in _STEPS]


Scale = Linear | Log


def percent(scale: Scale, value: float) -> str:
    return f"{scale.share(value) * 100:.2f}%"


@dataclass(frozen=True, slots=True)
class Axis:
    """A scale with the texts at its ticks."""

    scale: Scale
    ticks: Sequence[tuple[float, str]]


@dataclass(frozen=True, slots=True)
class Plot:
    """What has an x and a y axis. `height_px` is that of the plot alone."""

    x: Axis
    y: Axis
    height_px: int = 120

    def x_of(self, value: float) -> str:
        return percent(self.x.scale, value)

    def y_of(self, value: float) -> float:
        return _TOP_PX + (1 - self.y.scale.share(value)) * self.height_px

    def line(self, points: Sequence[tuple[float, float | None]], class_: str, name: str = "") -> Markup:
        """A line that is broken where there is no value; a value between two breaks is a short dash."""
        parts: list[str] = []
        pen = "M"
        for index, (x, y) in enumerate(points):
            if y is None:
                pen = "M"
                continue
            parts.append(f"{pen}{self._view_x(x)} {self.y_of(y):.1f}")
            alone = pen == "M" and (index + 1 == len(points) or points[index + 1][1] is None)
            if alone:
                parts.append("h2")
            pen = "L"
        return tag("path", *([title(name)] if name else []), class_=f"line {class_}", d="".join(parts))

    def area(self, edges: Sequence[tuple[float, float, float]], width: float, class_: str) -> Markup:
        """Steps `width` wide: each begins at an x and reaches from a lower to an upper y."""
        parts = [
            f"M{self._view_x(x)} {self.y_of(low):.1f}V{self.y_of(high):.1f}H{self._view_x(x + width)}"
            f"V{self.y_of(low):.1f}Z"
            for x, low, high in edges
            if high > low
        ]
        return tag("path", class_=class_, d="".join(parts))

    def band(self, start: float, end: float, class_: str, text: str) -> Markup:
        width = (self.x.scale.share(end) - self.x.scale.share(start)) * 100
        height = self.height_px
        return tag(
            "rect", title(text), class_=class_, x=self.x_of(start), y=_TOP_PX, width=f"{width:.2f}%", height=height
        )

    def upright(self, at: float, class_: str, text: str) -> Markup:
        x = self.x_of(at)
        return tag("line", title(text), class_=class_, x1=x, x2=x, y1=_TOP_PX, y2=_TOP_PX + self.height_px)

    def drawn(self, behind: Iterable[Markup], paths: Iterable[Markup], **attributes: object) -> Markup:
        """The plot with its axes: `behind` is in percent, `paths` are lines and areas."""
        height = self.height_px + _TOP_PX
        grid = [
            tag("line", class_="grid", x1="0", x2="100%", y1=self.y_of(value), y2=self.y_of(value))
            for value, _ in self.y.ticks
        ]
        y_labels = [tag("text", text, x="100%", y=self.y_of(value) + 4) for value, text in self.y.ticks]
        x_labels = [self._x_label(value, text) for value, text in self.x.ticks]
        view = tag(
            "svg",
            *paths,
            viewBox=f"0 0 {_VIEW} {height}",
            preserveAspectRatio="none",
            width="100%",
            height=height,
        )
        full = height + _X_LABELS_PX
        return tag(
            "div",
            tag("svg", *y_labels, class_="y-axis", height=full, aria_hidden="true"),
            tag("svg", *behind, *grid, view, *x_labels, class_="plot", height=full, role="img", **attributes),
            class_="chart",
        )

    def _x_label(self, value: float, text: str) -> Markup:
        share = self.x.scale.share(value)
        anchor = "start" if share < 0.02 else "end" if share > 0.98 else "middle"
        return tag(
            "text", text, class_="x", x=f"{share * 100:.2f}%", y=self.height_px + _TOP_PX + 14, text_anchor=anchor
        )

    def _view_x(self, value: float) -> str:
        return f"{self.x.scale.share(value) * _VIEW:.1f}"
