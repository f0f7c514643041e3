"""What is wrong with a scenario file, or doubtful: a Problem for each; all errors go in one ScenarioError."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Path = tuple[str | int, ...]
"""Keys and list indices from the root of the document."""


@dataclass(frozen=True, slots=True)
class Problem:
    """`line` and `column` count from 1; both are 0 for an override, whose text is then the `file`.

    A warning keeps nothing from running.
    """

    file: str
    line: int
    column: int
    path: str
    message: str
    severity: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        severity = ["warning"] if self.severity == "warning" else []
        return ": ".join([place, *severity, *filter(None, [self.path]), self.message])


def in_order(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Each once, in the order of the file, those of overrides last."""
    return tuple(sorted(dict.fromkeys(problems), key=lambda p: (p.line == 0, p.line, p.column, p.path)))


class ScenarioError(Exception):
    """A scenario that cannot be run; `problems` holds every reason, in the order of the file, overrides last."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = in_order(problems)
        super().__init__("\n".join(map(str, self.problems)))

    def __reduce__(self) -> tuple[type[ScenarioError], tuple[tuple[Problem, ...]]]:
        return ScenarioError, (self.problems,)


def path_text(path: Path) -> str:
    """`spec.faults[0].at`; a key that is not plain text is quoted."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            plain = part.isprintable() and not set(part) & set('."[]= ') and 0 < len(part) <= 80
            text += f".{part if plain else repr(part[:80])}"
    return text.removeprefix(".")
