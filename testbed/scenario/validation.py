"""From plain data to models, with as much of it as is right.

Owns what is wrong with single keys and values, and what is left of a document without them. The words for it are
`wording`'s; what concerns several values is `checks`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from functools import cache
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from testbed.documents.problems import Path
from testbed.documents.source import Source
from testbed.scenario.models.experiment import ScenarioModel
from testbed.scenario.wording import choice, in_words


class Dropped:
    """What was taken out of a document, and where each part of what is left is written.

    Every question takes a time that does not depend on how much was dropped.
    """

    def __init__(self) -> None:
        self._paths: set[Path] = set()
        self._around: set[Path] = set()
        self._kept: dict[Path, list[int]] = {}
        """Of each list that lost items: where the items that are left are written."""

    def __contains__(self, path: Path) -> bool:
        return path in self._paths

    def add(self, path: Path) -> None:
        self._paths.add(path)
        self._around.update(path[:depth] for depth in range(len(path)))

    def touches(self, path: Path) -> bool:
        """Whether something at, in or around a written path was dropped."""
        return path in self._around or any(path[:depth] in self._paths for depth in range(len(path) + 1))

    def taken_out_of(self, data: Any) -> Any:
        """What is left of the document; `written` then tells of that."""
        self._kept.clear()
        return self._left(data, ())

    def written(self, location: Iterable[str | int]) -> Path:
        """The path in the file of a location in what is left, where the items of a list that were dropped do not
        count."""
        path: Path = ()
        for part in location:
            kept = self._kept.get(path) if isinstance(part, int) else None
            if kept is not None and isinstance(part, int):
                part = kept[part]
            path = (*path, part)
        return path

    def _left(self, data: Any, path: Path) -> Any:
        if path not in self._around:
            return data
        if isinstance(data, dict):
            return {key: self._left(value, (*path, key)) for key, value in data.items() if (*path, key) not in self}
        if isinstance(data, list):
            kept = self._kept[path] = [index for index in range(len(data)) if (*path, index) not in self]
            return [self._left(data[index], (*path, index)) for index in kept]
        return data


def validate(source: Source) -> tuple[ScenarioModel | None, Dropped]:
    """The model of what is valid in the source, and the paths that were dropped for that, each a noted problem.

    Dropping what is wrong lets the rest be checked in the same go: one wrong unit does not hide a wrong reference.
    """
    dropped = Dropped()
    first = True
    while True:
        try:
            return ScenarioModel.model_validate(dropped.taken_out_of(source.data)), dropped
        except ValidationError as error:
            problems = error.errors(include_url=False)
            # Later rounds only meet the gaps that the first has torn: they are no problems of the file.
            if first:
                _report(problems, source)
            paths = {_nearest_kept(dropped.written(_location(details)), source, dropped) for details in problems}
            if () in paths:
                return None, dropped
            for path in paths:
                dropped.add(path)
        first = False


def _nearest_kept(path: Path, source: Source, dropped: Dropped) -> Path:
    while path and (not source.exists(path) or path in dropped):
        path = path[:-1]
    return path


def _report(problems: Sequence[ErrorDetails], source: Source) -> None:
    """Note what is wrong in a document of which nothing is dropped yet."""
    missing = {details["loc"] for details in problems if details["type"] == "missing"}
    meant: dict[Path, str] = {}
    for details in problems:
        if details["type"] == "extra_forbidden":
            around, key = details["loc"][:-1], str(details["loc"][-1])
            known, written = _keys_at(around), source.value(around)
            absent = [name for name in known if name not in written]
            for name in get_close_matches(key, absent, n=1) or get_close_matches(key, known, n=1):
                meant[details["loc"]] = name
                # One slip of the pen is one problem.
                missing.discard((*around, name))
    for details in problems:
        location = _location(details)
        if details["loc"][-1:] == ("[key]",):
            source.report(location, in_words(details), at_key=True)
        elif details["type"] == "extra_forbidden":
            right = f"did you mean {meant[location]!r}?" if location in meant else choice(_keys_at(location[:-1]))
            source.report(location, f"unknown key; {right}", at_key=True)
        elif details["type"] != "missing":
            # A value may be written short (`work: 2ms`) and be wrong in its long form only: `work.mean`.
            while not source.exists(location):
                location = location[:-1]
            source.report(location, in_words(details))
        elif location in missing:
            source.report(location, in_words(details), at_key=True)


def _location(details: ErrorDetails) -> Path:
    location = details["loc"]
    return location[:-1] if location[-1:] == ("[key]",) else location


@cache
def _keys_of(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _keys_at(location: Path) -> list[str]:
    """The keys that the model at a location knows, as they are written."""
    kind: Any = ScenarioModel
    for part in location:
        kind = _plain(kind)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            kind = next(f.annotation for name, f in kind.model_fields.items() if (f.alias or name) == part)
        else:
            kind = get_args(kind)[-1]
    model = _plain(kind)
    assert isinstance(model, type)
    assert issubclass(model, BaseModel)
    return _keys_of(model)


def _plain(annotation: Any) -> Any:
    """The type inside Annotated and Optional."""
    while get_origin(annotation) in (Annotated, Union, UnionType):
        annotation = next(arg for arg in get_args(annotation) if arg is not type(None))
    return annotation
