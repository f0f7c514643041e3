"""`--set path=value`: changes to a scenario from outside its file.

A path is keys joined by dots, with list items by index or by name: `spec.faults[lose-east-a].at=20s`. A key that holds
dots or brackets stands in double quotes. The value is YAML; nothing (`path=`) takes the key away.
"""

from __future__ import annotations

import re

from testbed.documents.problems import Path, Problem, ScenarioError, path_text
from testbed.documents.quantities import shown
from testbed.documents.source import Mark, Source, parse_source

_PART = re.compile(r'(?:^|[.])(?:"([^"]+)"|([^."\[\]=\s]+))|(?<=.)\[([^\[\]]+)\]')


def override(source: Source, assignment: str) -> None:
    """Apply one `path=value`, or note a problem with it in the source."""
    label = f"--set {' '.join(assignment.split())[:200]}"
    written: Path = ()
    try:
        written, text = _split(assignment)
        value = None
        if text.strip():
            parsed = parse_source(label, text)
            value = parsed.data
            source.problems += (Problem(label, 0, 0, path_text(written), p.message) for p in parsed.problems)
        _put(source, written, value, label)
    except ScenarioError as error:
        source.problems.append(Problem(label, 0, 0, path_text(written), f"value {error.problems[0].message}"))
    except ValueError as error:
        source.problems.append(Problem(label, 0, 0, "", str(error)))


def override_seed(source: Source, seed: int) -> None:
    """Set `spec.seed`, as `--seed` asks for, or note why that is not possible."""
    label = f"--seed {seed}"
    try:
        _put(source, ("spec", "seed"), seed, label)
    except ValueError as error:
        source.problems.append(Problem(label, 0, 0, "", str(error)))


def _put(source: Source, written: Path, value: object, label: str) -> None:
    """Set a value at a path, making the mappings that lead there. Raises ValueError where the path does not fit."""
    path: Path = ()
    mark = Mark(label, 0, 0)
    for depth, part in enumerate(written):
        path = (*path, _step(source, path, part))
        if depth == len(written) - 1:
            source.put(path, value, mark)
        elif not source.exists(path) or source.value(path) is None:
            source.put(path, {}, mark)


def _split(assignment: str) -> tuple[Path, str]:
    parts: list[str] = []
    position = 0
    while match := _PART.match(assignment, position):
        parts.append(next(group for group in match.groups() if group is not None))
        position = match.end()
    if not parts or assignment[position : position + 1] != "=":
        raise ValueError("must be path=value, for example spec.load.duration=60s")
    return tuple(parts), assignment[position + 1 :]


def _step(source: Source, path: Path, part: str | int) -> str | int:
    """The key or index that `part` means in the mapping or list at `path`."""
    around = source.value(path)
    where = path_text(path) or "the document"
    if isinstance(around, dict):
        return part
    if not isinstance(around, list):
        raise ValueError(f"{where} is {shown(around)} and has no keys")
    names = [item.get("name") if isinstance(item, dict) else None for item in around]
    if part in names:
        return names.index(part)
    if str(part).isdecimal() and len(str(part)) < 6:
        if int(part) < len(around):
            return int(part)
        raise ValueError(f"{where} has {len(around)} items, counted from 0, and so none at {part}")
    known = ", ".join(name for name in names if isinstance(name, str))
    raise ValueError(f"{where} has no item named {part!r}{f'; it has {known}' if known else ''}")
