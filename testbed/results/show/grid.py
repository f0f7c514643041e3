"""Text for a terminal of any width: tables that fold and lines that wrap. No figure is ever cut, no line ends blank."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

GAP = "  "
_WRAPPING = Console(width=80, color_system=None)
"""Wrapping does not depend on where a text is shown, but rich asks for a console."""


@dataclass(frozen=True, slots=True)
class Grid:
    """A table without lines. The first column, the key, is aligned left, all others right.

    Where it is too wide for the terminal it is shown in parts below each other, each with the keys again. `groups` are
    the numbers of neighbouring columns, without the key, that are to stay in one part.
    """

    headers: Sequence[str]
    rows: Sequence[Sequence[str | Text]]
    groups: Sequence[int] = ()

    def lines(self, width: int) -> list[Text]:
        """At most `width` wide, if that is enough for the widest figure and a bit of the key."""
        key_width = min(self._width(0), max(1, width // 2))
        return [line for columns in self._parts(width - key_width) for line in self._part(columns, key_width, width)]

    def _width(self, column: int) -> int:
        return max(len(self.headers[column]), *(len(row[column]) for row in self.rows), 0)

    def _parts(self, width: int) -> Iterator[list[int]]:
        """The columns of each part; `width` is what the key leaves."""
        columns = range(1, len(self.headers))
        if self._fits(list(columns), width) or not self.groups:
            yield from self._filled(columns, width)
            return
        part = range(1, 1)
        for size in self.groups:
            longer = range(part.start, part.stop + size)
            if part and not self._fits(list(longer), width):
                yield from self._filled(part, width)
                longer = range(part.stop, part.stop + size)
            part = longer
        yield from self._filled(part, width)

    def _filled(self, columns: range, width: int) -> Iterator[list[int]]:
        part: list[int] = []
        for column in columns:
            if part and not self._fits([*part, column], width):
                yield part
                part = []
            part.append(column)
        yield part

    def _fits(self, columns: list[int], width: int) -> bool:
        return sum(len(GAP) + self._width(column) for column in columns) <= width

    def _part(self, columns: list[int], key_width: int, width: int) -> Iterator[Text]:
        header = [Text(each, style="dim") for each in self.headers]
        for row in (header, *self.rows):
            cells = [cell if isinstance(cell, Text) else Text(cell) for cell in row]
            key = cells[0]
            if len(key) > key_width:
                yield from wrapped(key, width)
                key = Text()
            line = key + Text(" " * (key_width - len(key)))
            for column in columns:
                line += Text(GAP + " " * (self._width(column) - len(cells[column]))) + cells[column]
            line.rstrip()
            yield line


def wrapped(text: Text, width: int, indent: str = "", hanging: str = "") -> list[Text]:
    """Lines of at most `width`, broken between words: `indent` goes before the first, `hanging` before the others."""
    first, *others = text.wrap(_WRAPPING, max(1, width - len(indent)))
    lines = [Text(indent) + first]
    if others:
        rest = Text(" ").join(others)
        lines += [Text(hanging) + line for line in rest.wrap(_WRAPPING, max(1, width - len(hanging)))]
    for line in lines:
        line.rstrip()
    return lines


@dataclass(frozen=True, slots=True)
class NotedGrid:
    """`notes` stand below it."""

    grid: Grid
    notes: tuple[Text, ...] = ()

    def lines(self, width: int) -> list[Text]:
        return [*self.grid.lines(width), *(line for note in self.notes for line in wrapped(note, width, "", "  "))]


def side_by_side(blocks: Sequence[Sequence[Text]], gap: str) -> list[Text]:
    """Blocks of lines beside each other."""
    widths = [max(map(len, block), default=0) for block in blocks]
    lines = []
    for number in range(max(map(len, blocks), default=0)):
        line = Text()
        for block, width in zip(blocks, widths, strict=True):
            cell = block[number] if number < len(block) else Text()
            line += cell + Text(" " * (width - len(cell)) + gap)
        line.rstrip()
        lines.append(line)
    return lines
