"""How figures are written for people."""

from __future__ import annotations

from math import floor

NONE = "-"
_UNITS = {"TB": 1e12, "GB": 1e9, "MB": 1e6, "kB": 1e3}


def seconds(value_s: float | None) -> str:
    if value_s is None:
        return NONE
    return f"{value_s * 1e3:.0f} ms" if abs(value_s) < 1 else f"{value_s:.2f} s"


def since(at_s: float | None, change_s: float) -> str:
    """Time after a change. What was in flight then was meant to be sent before it, and suffered from it at once."""
    return NONE if at_s is None else seconds(max(0.0, at_s - change_s))


def share(value: float | None, digits: int = 2) -> str:
    """Rounded down, so that 100 % is all."""
    return NONE if value is None else f"{floor(value * 10 ** (digits + 2) + 1e-6) / 10**digits:.{digits}f} %"


def volume(size_bytes: int | None) -> str:
    if size_bytes is None:
        return NONE
    unit = next((unit for unit, size in _UNITS.items() if size_bytes >= size), None)
    return f"{size_bytes} B" if unit is None else f"{size_bytes / _UNITS[unit]:.1f} {unit}"


def milliseconds(value_ms: float | None) -> str:
    if value_ms is None:
        return NONE
    return f"{value_ms:.2f} ms" if abs(value_ms) < 10 else f"{value_ms:,.1f} ms"


def count(value: float) -> str:
    return f"{value:,.0f}"


def short_count(value: float) -> str:
    """At most four characters: 999, 9.9k, 99k, 9.9M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size * 0.9995:
            scaled = value / size
            return f"{scaled:.1f}{unit}" if scaled < 9.95 else f"{scaled:.0f}{unit}"
    return f"{value:.0f}"


def rate(value_per_s: float) -> str:
    return f"{value_per_s:,.1f}/s" if value_per_s < 100 else f"{value_per_s:,.0f}/s"


def plain(value: float) -> str:
    """A tick of an axis, as short as it is exact."""
    return f"{value:,.10g}"


def cut(text: str, length: int = 300) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
