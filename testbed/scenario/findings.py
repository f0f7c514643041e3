"""Where checks report to, and what they may rely on when parts of the scenario are already known to be wrong."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

from testbed.scenario.problems import Path
from testbed.scenario.source import Source
from testbed.scenario.validation import nearest, written_path


@dataclass(frozen=True, slots=True)
class Findings:
    """Takes locations in the model and reports them where they are written."""

    source: Source
    dropped: frozenset[Path]
    """What validation took out of the model."""
    folder: FilePath
    """Folder of the scenario file, which paths in it are relative to."""

    def report(self, location: Path, message: str, *, at_key: bool = False) -> None:
        path = written_path(location, self.dropped)
        # A value may be written short, `calls: [web]` for `calls: [[web]]`; a missing key keeps its own path.
        while not at_key and not self.source.exists(path):
            path = path[:-1]
        self.source.report(path, message, at_key=at_key)

    def is_whole(self, *location: str | int) -> bool:
        """Whether nothing there had to be dropped, so that what the model lacks is really missing."""
        path = written_path(location, self.dropped)
        return not any(gone[: len(path)] == path or path[: len(gone)] == gone for gone in self.dropped)

    def names(self, *location: str) -> tuple[str, ...]:
        """All names written in a mapping, or in the `name` of a list's items, valid or not."""
        if not self.source.exists(location):
            return ()
        value: Any = self.source.value(location)
        if isinstance(value, dict):
            return tuple(value)
        names = [item.get("name") for item in value if isinstance(item, dict)] if isinstance(value, list) else []
        return tuple(name for name in names if isinstance(name, str))

    def reference(self, location: Path, noun: str, name: str, known: Iterable[str]) -> None:
        """Report a name that is not among the known ones."""
        names = tuple(dict.fromkeys(known))
        if name not in names:
            self.report(location, f"there is no {noun} {name!r}; {nearest(name, names)}")
