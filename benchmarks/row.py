"""One line of the table that the benchmarks print."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """`result` is a ratio or an error; `bound` is what it should keep to."""

    benchmark: str
    measured: str
    against: str
    result: str
    bound: str
