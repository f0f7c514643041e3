"""Files of JSON lines as processes wrote them, read in bounded memory.

A line that cannot be read (a killed process leaves its last one torn) is counted, not raised.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

_BLOCK_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class IngestCounts:
    """`orphans` are finishes of requests that were never sent: lines lost before them."""

    lines: int = 0
    rows: int = 0
    unreadable: int = 0
    orphans: int = 0


def blocks(path: Path) -> Iterator[tuple[list[Any], int]]:
    """Parsed lines of a file, some megabytes at a time, with the number of lines in the block that are no JSON."""
    with path.open("rb") as file:
        while lines := file.readlines(_BLOCK_BYTES):
            values = parsed(lines)
            yield values, len(lines) - len(values)


def parsed(lines: Sequence[bytes]) -> list[Any]:
    """Those that are JSON."""
    try:
        # One call for the whole block is several times faster than one a line.
        values = orjson.loads(b"[" + b",".join(lines) + b"]")
        if len(values) == len(lines):
            return list(values)
    except orjson.JSONDecodeError:
        pass
    return [value for line in lines for value in _parsed(line)]


def line_count(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for _ in file)


def _parsed(line: bytes) -> list[Any]:
    try:
        return [orjson.loads(line)]
    except orjson.JSONDecodeError:
        return []


def number(value: Any) -> float | None:
    """Envoy writes null or `-` where it has no value."""
    return None if value is None or value == "-" else float(value)


def whole(value: Any) -> int | None:
    return None if value is None or value == "-" else int(value)
