"""`--set path=value`: changes to a scenario from outside its file.

A path is keys joined by dots, with list items in brackets: by index, by name (what `name` says, or where items have
none, `zone` or `service`), or `[*]` for all items of a list and all keys of a mapping. A key that holds dots or
brackets stands in double quotes. The value is YAML; nothing (`path=`) takes the key or the item away.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from copy import deepcopy
from enum import Enum
from typing import Any

from testbed.documents.problems import Path, Problem, ScenarioError, path_text
from testbed.documents.quantities import shown
from testbed.documents.source import Mark, Source, parse_source

_PART = re.compile(r'(?:^|[.])(?:"([^"]+)"|([^."\[\]=\s]+))|(?<=.)\[([^\[\]]+)\]')
_NAMES_SHOWN = 12


class _All(Enum):
    """`[*]`."""

    ALL = "*"


_Written = tuple[str | _All, ...]


def override(source: Source, assignment: str) -> None:
    """Apply one `path=value`, or note a problem with it in the source."""
    label = f"--set {' '.join(assignment.split())[:200]}"
    where = ""
    try:
        written, text = split_assignment(assignment)
        where = _text(written)
        if not text.strip():
            _take_away(source, written, Mark(label, 0, 0))
            return
        parsed = parse_source(label, text)
        source.problems += (Problem(label, 0, 0, where, problem.message) for problem in parsed.problems)
        _put(source, written, parsed.data, Mark(label, 0, 0))
    except ScenarioError as error:
        source.problems.append(Problem(label, 0, 0, where, f"value {error.problems[0].message}"))
    except ValueError as error:
        source.problems.append(Problem(label, 0, 0, "", str(error)))


def override_seed(source: Source, seed: int) -> None:
    """Set `spec.seed`, as `--seed` asks for, or note why that is not possible."""
    label = f"--seed {seed}"
    try:
        _put(source, ("spec", "seed"), seed, Mark(label, 0, 0))
    except ValueError as error:
        source.problems.append(Problem(label, 0, 0, "", str(error)))


def split_assignment(assignment: str) -> tuple[_Written, str]:
    """The parts of the path, and the text of the value. Raises ValueError where it is no `path=value`."""
    parts: list[str | _All] = []
    position = 0
    while match := _PART.match(assignment, position):
        part = next(group for group in match.groups() if group is not None)
        parts.append(_All.ALL if match[3] == "*" else part)
        position = match.end()
    if not parts or assignment[position : position + 1] != "=":
        raise ValueError("must be path=value, for example spec.load.duration=60s")
    return tuple(parts), assignment[position + 1 :]


def names_of(items: Sequence[Any]) -> list[str | None]:
    """By what each item of a list is known: its name, else its zone or service if no other item has the same."""
    names = [_name(item) for item in items]
    return [name if names.count(name) == 1 else None for name in names]


def _name(item: Any) -> str | None:
    if not isinstance(item, dict):
        return None
    return next((item[key] for key in ("name", "zone", "service") if isinstance(item.get(key), str)), None)


def _put(source: Source, written: _Written, value: Any, mark: Mark) -> None:
    """Set a value wherever it is meant to be. Raises ValueError where the path does not fit."""
    for path in _meant(source, written):
        _put_at(source, path, deepcopy(value), mark)


def _put_at(source: Source, path: Path, value: Any, mark: Mark) -> None:
    """Set a value, making the mappings that lead there."""
    for depth in range(1, len(path)):
        around = path[:depth]
        if not source.exists(around) or source.value(around) is None:
            source.put(around, {}, mark)
    source.put(path, value, mark)


def _take_away(source: Source, written: _Written, mark: Mark) -> None:
    """Of a key that is not written only null is left, which says whether there could be such a key."""
    for path in reversed(_meant(source, written)):
        if source.exists(path):
            source.remove(path, mark)
        else:
            _put_at(source, path, None, mark)


def _meant(source: Source, written: _Written) -> list[Path]:
    """The paths that are meant, of which the last keys may not be there yet."""
    paths: list[Path] = [()]
    for part in written:
        paths = [(*path, each) for path in paths for each in _steps(source, path, part)]
    return paths


def _steps(source: Source, path: Path, part: str | _All) -> Sequence[str | int]:
    """The keys or indices that `part` means in the mapping or list at `path`."""
    where = path_text(path) or "the document"
    around = source.value(path) if source.exists(path) else None
    if isinstance(part, _All):
        if not isinstance(around, dict | list):
            raise ValueError(f"{where} is {shown(around)}: there is nothing that [*] could be")
        if not around:
            raise ValueError(f"{where} is empty: there is nothing that [*] could be")
        return list(around) if isinstance(around, dict) else range(len(around))
    if isinstance(around, dict) or around is None:
        return (part,)
    if not isinstance(around, list):
        raise ValueError(f"{where} is {shown(around)} and has no keys")
    return (_index(around, part, where),)


def _index(items: Sequence[Any], part: str, where: str) -> int:
    names = names_of(items)
    if part in names:
        return names.index(part)
    if part.isdecimal() and len(part) < 6:
        if int(part) < len(items):
            return int(part)
        raise ValueError(f"{where} has {len(items)} items, counted from 0, and so none at {part}")
    if several := [str(index) for index, item in enumerate(items) if _name(item) == part]:
        raise ValueError(f"{where} has {len(several)} items named {part!r}; write {' or '.join(several)} or *")
    known = [name for name in names if name is not None]
    more = f" and {len(known) - _NAMES_SHOWN} more" if len(known) > _NAMES_SHOWN else ""
    if known:
        raise ValueError(f"{where} has no item named {part!r}; it has {', '.join(known[:_NAMES_SHOWN])}{more}")
    raise ValueError(
        f"{where} has {f'{len(items)} items without names' if items else 'no items'}, and so none named {part!r}"
    )


def _text(written: _Written) -> str:
    """As it is written, with what `path_text` does about odd characters."""
    return "".join("[*]" if isinstance(part, _All) else f".{path_text((part,))}" for part in written).removeprefix(".")
