"""Files of JSON lines as processes wrote them, read in bounded memory.

A line that cannot be read (a killed process leaves its last one torn) is counted, not raised.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
from pyarrow import json

_BLOCK_BYTES = 8 << 20
_AT_ONCE_BYTES = 1 << 20
"""Of a block, by each core."""


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


def tables(path: Path, form: pa.Schema, quoted: Collection[str] = ()) -> Iterator[tuple[pa.Table, int]]:
    """Lines of a file as tables, some megabytes at a time, each with the number of lines that have another form.

    What a line does not have is null, and what `form` does not have is left out. `quoted` are numbers that are written
    as strings.
    """
    # Envoy writes whole numbers of its metadata as doubles.
    written = pa.schema([(field.name, _written(field.type, field.name in quoted)) for field in form])
    with path.open("rb") as file:
        while lines := file.readlines(_BLOCK_BYTES):
            parts = pa.concat_tables([form.empty_table(), *_parts(lines, written, form)])
            yield parts.combine_chunks(), len(lines) - parts.num_rows


def _written(type_: pa.DataType, quoted: bool) -> pa.DataType:
    return pa.string() if quoted or pa.types.is_string(type_) else pa.float64()


def _parts(lines: Sequence[bytes], written: pa.Schema, form: pa.Schema) -> Iterator[pa.Table]:
    """Those that have the form: all at once, as nearly always they have, else what is left of each half."""
    try:
        if not all(line.startswith(b"{") for line in lines):
            raise ValueError("Arrow may crash on what is no object, such as null")
        reading = json.ReadOptions(block_size=max(_AT_ONCE_BYTES, *map(len, lines)))
        parsing = json.ParseOptions(explicit_schema=written, unexpected_field_behavior="ignore")
        table = json.read_json(BytesIO(b"".join(lines)), reading, parsing)
        if table.num_rows == len(lines):
            # Arrow takes any bytes for a string.
            table.validate(full=True)
            yield table.cast(form)
            return
    except ValueError:
        pass
    if len(lines) > 1:
        middle = len(lines) // 2
        yield from _parts(lines[:middle], written, form)
        yield from _parts(lines[middle:], written, form)


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
