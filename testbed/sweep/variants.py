"""`--set path=v1,v2` of a sweep -> variants, each with the `--set` of its own. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from testbed.documents.overrides import split_assignment
from testbed.results.compare.comparison import name_of

MOST_VARIANTS = 100
_QUOTED = re.compile(r""" "(?:[^"\\]|\\.)*" | '(?:[^']|'')*' """, re.DOTALL | re.VERBOSE)
_CLOSES = {"[": "]", "{": "}"}


class BadVariants(Exception):
    """`problems` has a line for each `--set` that is wrong."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Variant:
    """`overrides` are `path=value` each, as `testbed run --set` takes them. `varied` are those that not all have."""

    name: str
    overrides: tuple[str, ...]
    varied: tuple[str, ...]


def variants(assignments: Sequence[str]) -> tuple[Variant, ...]:
    """All combinations of the values of all paths: A, B, ..., of which the last path changes fastest.

    Raises BadVariants for what is no `path=value`, paths that come twice, and more than `MOST_VARIANTS`.
    """
    problems = []
    choices: list[list[str]] = []
    paths: list[str] = []
    for assignment in assignments:
        try:
            _, text = split_assignment(assignment)
        except ValueError as error:
            problems.append(f"--set {assignment}: {error}")
            continue
        path = assignment[: len(assignment) - len(text) - 1]
        paths.append(path)
        choices.append([f"{path}={value}" for value in values(text)])
    problems += [f"--set {path}: given {times} times" for path, times in Counter(paths).items() if times > 1]
    for each in choices:
        problems += [f"--set {value}: given {times} times" for value, times in Counter(each).items() if times > 1]
    number = 1
    for each in choices:
        number *= len(each)
    if number > MOST_VARIANTS:
        problems.append(f"{number} variants are too many: {MOST_VARIANTS} at most")
    if problems:
        raise BadVariants(*problems)
    varying = [len(each) > 1 for each in choices]
    return tuple(
        Variant(name_of(index), chosen, tuple(each for each, varies in zip(chosen, varying, strict=True) if varies))
        for index, chosen in enumerate(product(*choices))
    )


def values(text: str) -> list[str]:
    """Parted at commas, but for those within YAML's brackets, braces or quotes. Nothing is a value, too."""
    found = [""]
    closing: list[str] = []
    position = 0
    while position < len(text):
        # Elsewhere a quote is part of a plain text, as in `it's`.
        begins = not found[-1].strip() or found[-1].rstrip()[-1] in "[{,:"
        quoted = _QUOTED.match(text, position) if begins else None
        token = text[position] if quoted is None else quoted[0]
        position += len(token)
        if token == "," and not closing:
            found.append("")
            continue
        if token in _CLOSES:
            closing.append(_CLOSES[token])
        elif closing and token == closing[-1]:
            closing.pop()
        found[-1] += token
    return [each.strip() for each in found]
