"""Quantities as text: `250ms`, `500/s`, `100mbit`, `2kB`, `99.9%`.

Owns the units and both directions of the translation; `parse(format(x)) == x` for every value that `parse` gives.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

_NUMBER = "[0-9]{1,15}(?:[.][0-9]{1,30})?"


@dataclass(frozen=True, slots=True)
class Quantity:
    """One kind of quantity. `units` maps each unit to its size; those in `written` are used to write, largest first."""

    noun: str
    units: dict[str, Fraction]
    written: tuple[str, ...]
    suggested: tuple[str, ...]
    maximum: str

    def parse(self, value: object) -> float:
        """The value in base units (seconds, per second, bits per second, bytes, share of 1). Raises ValueError."""
        match = re.fullmatch(f"(-?)({_NUMBER}) ?({self._unit_pattern})", value) if isinstance(value, str) else None
        if match is None:
            raise ValueError(self._what_is_missing(value))
        sign, number, unit = match.groups()
        exact = Fraction(number) * self.units[unit]
        if sign and exact:
            raise ValueError(f"must not be negative, but is {value}")
        if exact > self._exact(self.maximum):
            raise ValueError(f"must be at most {self.maximum}, not {value}")
        if 0 < exact < min(self.units.values()) / 10**9:
            raise ValueError(f"must be 0 or a measurable amount, not {value}")
        return float(exact)

    def _what_is_missing(self, value: object) -> str:
        """What to write instead of something that is no quantity."""
        text = shown(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
        if isinstance(text, str) and re.fullmatch(_NUMBER, text):
            choices = [f"{text}{unit}" for unit in self.suggested]
            if self.units == _SHARES and 0 < Fraction(text) <= 1:
                share = f"{Decimal(text) * 100:f}"
                choices.insert(0, f"{share.rstrip('0').rstrip('.') if '.' in share else share}%")
                return f"{self.noun} needs a unit: which is meant, {' or '.join(choices)}?"
            if all(self._exact(choice) <= self._exact(self.maximum) for choice in choices):
                return f"{self.noun} needs a unit: write {' or '.join(choices)}"
        elif isinstance(text, str) and (close := re.fullmatch(f"({_NUMBER}) ?([A-Za-z/%]+)", text)):
            number, written = close.groups()
            if unit := next((unit for unit in self.units if unit.casefold() == written.casefold()), None):
                return f"must be {self.noun} such as {self.example}, not {shown(value)}; did you mean {number}{unit}?"
        return f"must be {self.noun} such as {self.example}, not {shown(value)}"

    def format(self, value: float) -> str:
        """The shortest text, in the largest unit that leaves no number below 1."""
        if value == 0:
            return "0" + next((unit for unit, size in self.units.items() if size == 1), self.written[0])
        unit = next((u for u in self.written if value >= self.units[u]), self.written[-1])
        number = Decimal(repr(value)) * self.units[unit].denominator / self.units[unit].numerator
        return f"{number.normalize():f}{unit}"

    @property
    def example(self) -> str:
        return " or ".join(_EXAMPLES[self.noun])

    def json_schema(self, positive: bool = False) -> dict[str, Any]:
        """What such text looks like; `positive` leaves 0 out."""
        unit = f"(?:{self._unit_pattern})"
        return {
            "type": "string",
            "pattern": f"^{f'(?!0+(?:[.]0+)? ?{unit}$)' if positive else ''}{_NUMBER} ?{unit}$",
            "examples": list(_EXAMPLES[self.noun]),
        }

    @property
    def _unit_pattern(self) -> str:
        return "|".join(map(re.escape, self.units))

    def _exact(self, text: str) -> Fraction:
        number = re.match(_NUMBER, text)
        assert number is not None
        return Fraction(number[0]) * self.units[text[number.end() :]]


def shown(value: object) -> str:
    """A value of the file as an error message shows it: one short line."""
    match value:
        case None:
            return "nothing"
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case bool():
            return str(value).lower()
    text = repr(value) if isinstance(value, str) else str(Decimal(value) if isinstance(value, int) else value)
    return text if len(text) <= 60 else f"{text[:56]}..."


_EXAMPLES = {
    "a duration": ("250ms", "20s"),
    "a rate": ("200/s", "0.5/s"),
    "a bandwidth": ("100mbit", "1gbit"),
    "a size": ("500B", "2kB"),
    "a percentage": ("99.9%", "1%"),
    "a price": ("0.01/GB", "0.09/GB"),
}

_SHARES = {"%": Fraction(1, 100)}
"""A bare 0.99 may be a share of 1 or be short of its %: what only looks right would be a hundred times off."""

DURATION = Quantity(
    "a duration",
    {
        "us": Fraction(1, 10**6),
        "ms": Fraction(1, 1000),
        "s": Fraction(1),
        "m": Fraction(60),
        "h": Fraction(3600),
    },
    written=("s", "ms", "us"),
    suggested=("ms", "s"),
    maximum="1000h",
)
RATE = Quantity("a rate", {"/s": Fraction(1)}, written=("/s",), suggested=("/s",), maximum="1000000000/s")
BANDWIDTH = Quantity(
    "a bandwidth",
    {"bit": Fraction(1), "kbit": Fraction(10**3), "mbit": Fraction(10**6), "gbit": Fraction(10**9)},
    written=("gbit", "mbit", "kbit", "bit"),
    suggested=("mbit", "gbit"),
    maximum="1000000gbit",
)
SIZE = Quantity(
    "a size",
    {
        "B": Fraction(1),
        "kB": Fraction(10**3),
        "MB": Fraction(10**6),
        "KiB": Fraction(2**10),
        "MiB": Fraction(2**20),
    },
    written=("MB", "kB", "B"),
    suggested=("B", "kB"),
    maximum="1000MB",
)
VOLUME = Quantity(
    "a size",
    {**SIZE.units, "GB": Fraction(10**9), "TB": Fraction(10**12)},
    written=("TB", "GB", "MB", "kB", "B"),
    suggested=("B", "kB"),
    maximum="1000TB",
)
"""What is carried in all, where a size is that of one body."""
PRICE = Quantity("a price", {"/GB": Fraction(1)}, written=("/GB",), suggested=("/GB",), maximum="1000000/GB")
"""In whatever currency, for 10^9 bytes."""
PERCENTAGE = Quantity("a percentage", _SHARES, written=("%",), suggested=("%",), maximum="100%")
