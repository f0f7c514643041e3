"""Where checks report to, and what they may rely on when parts of the scenario are already known to be wrong."""

from __future__ import annotations

from collections.abc import Collection, Iterable, KeysView, Mapping
from pathlib import Path as FilePath
from typing import Any

from testbed.documents.problems import Path
from testbed.documents.source import Source
from testbed.scenario.validation import Dropped
from testbed.scenario.wording import choice, nearest

COMPARISONS = 20_000
"""How many pairs of names are compared in all, to find what was meant: a second at most, whatever the file holds."""


class Findings:
    """Takes locations in the model and reports them where they are written."""

    def __init__(self, source: Source, dropped: Dropped, folder: FilePath) -> None:
        """`dropped` is what validation took out of the model; paths in the file are relative to `folder`."""
        self.source = source
        self.folder = folder
        self._dropped = dropped
        self._names: dict[Path, KeysView[str]] = {}
        self._things: dict[str, Mapping[str, str]] = {}
        self._comparisons = COMPARISONS

    def report(self, location: Path, message: str, *, at_key: bool = False) -> None:
        path = self._written(location, at_key=at_key)
        self.source.report(path, message, at_key=at_key)

    def warn(self, location: Path, message: str, *, at_key: bool = False) -> None:
        """Note what is doubtful, but does not keep the scenario from running."""
        path = self._written(location, at_key=at_key)
        self.source.report(path, message, at_key=at_key, severity="warning")

    def is_whole(self, *location: str | int) -> bool:
        """Whether nothing there had to be dropped, so that what the model lacks is really missing."""
        return not self._dropped.touches(self._dropped.written(location))

    def names(self, *location: str) -> KeysView[str]:
        """All names written in a mapping, or in the `name` of a list's items, valid or not."""
        if location not in self._names:
            value: Any = self.source.value(location) if self.source.exists(location) else None
            if isinstance(value, list):
                value = [item.get("name") for item in value if isinstance(item, dict)]
            names = value if isinstance(value, list | dict) else ()
            self._names[location] = dict.fromkeys(name for name in names if isinstance(name, str)).keys()
        return self._names[location]

    def introduce(self, noun: str, things: Mapping[str, str]) -> None:
        """All things of one kind by name, each with what it is, to be said where something else is wanted."""
        self._things[noun] = things

    def known(self, noun: str) -> KeysView[str]:
        """The names of all things of one kind."""
        return self._things[noun].keys()

    def reference(
        self, location: Path, noun: str, name: str, known: Collection[str], instead: Mapping[str, str] | None = None
    ) -> None:
        """Report a name that is not among the known ones.

        `instead` says what to write where the name is that of something else: noun -> text.
        """
        if name not in known:
            self.report(location, f"there is no {noun} {name!r}; {self._meant(noun, name, known, instead or {})}")

    def _meant(self, noun: str, name: str, known: Iterable[str], instead: Mapping[str, str]) -> str:
        for other, things in self._things.items():
            if other != noun and name in things:
                return f"it is {things[name]}" + (f": write {instead[other]}" if other in instead else "")
        names = list(known)
        self._comparisons -= len(names)
        return nearest(name, names) if self._comparisons >= 0 else choice(names)

    def _written(self, location: Path, *, at_key: bool) -> Path:
        path = self._dropped.written(location)
        # A value may be written short, `calls: [web]` for `calls: [[web]]`; a missing key keeps its own path.
        while not at_key and not self.source.exists(path):
            path = path[:-1]
        return path
