"""Files of JSON lines that are still written: what is new in them since the last time, all of it or a sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from testbed.results.tables.lines import parsed

_MOST_BYTES = 4 << 20
"""Of one file at a time; a reader that has fallen behind catches up bit by bit."""


class Tail:
    """Of one file, from where it was left last. One that does not exist yet has nothing new."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = 0

    def new(self) -> list[Any]:
        """Every whole line since the last call; what is no JSON is left out."""
        return parsed(self._read(self._position, _MOST_BYTES).splitlines())

    def sample(self, most_bytes: int) -> tuple[list[Any], float]:
        """The newest of these lines, and how many of them there were for each that is here, judged by their bytes."""
        try:
            size = self._path.stat().st_size
        except OSError:
            return [], 1.0
        behind = size - self._position
        if behind <= most_bytes:
            return self.new(), 1.0
        block = self._read(size - most_bytes, most_bytes)
        # It begins in the middle of a line.
        block = block[block.find(b"\n") + 1 :]
        return parsed(block.splitlines()), behind / max(len(block), 1)

    def _read(self, start: int, most_bytes: int) -> bytes:
        try:
            with self._path.open("rb") as file:
                file.seek(start)
                block = file.read(most_bytes)
        except OSError:
            return b""
        whole = block.rfind(b"\n") + 1
        self._position = start + whole
        return block[:whole]
