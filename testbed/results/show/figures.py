"""How figures are written for people."""

from __future__ import annotations

from math import floor

NONE = "-"
_UNITS = {"TB": 1e12, "GB": 1e9, "MB": 1e6, "kB": 1e3}


def seconds(value_s: float | None) -> str:
    if value_s is None:
        return NONE
    return f"{value_s * 1e3:.0f} ms" if abs(value_s) < 1 else f"{value_s:.2f} s"


def share(value: float | None, digits: int = 2) -> str:
    """Rounded down, so that 100 % is all."""
    return NONE if value is None else f"{floor(value * 10 ** (digits + 2) + 1e-6) / 10**digits:.{digits}f} %"


def volume(size_bytes: int | None) -> str:
    if size_bytes is None:
        return NONE
    unit = next((unit for unit, size in _UNITS.items() if size_bytes >= size), None)
    return f"{size_bytes} B" if unit is None else f"{size_bytes / _UNITS[unit]:.1f} {unit}"
