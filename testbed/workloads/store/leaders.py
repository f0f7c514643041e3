"""When this replica began to lead a group, when it led no more, and who was in sync meanwhile: lines of a file, which
become events of the run."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Literal

import orjson

Leading = Literal["leads", "yields", "leads no more"]
"""A leader that yields hands leadership over: it takes no writes any more, or only if the other fails to take over."""
Forbidding = Literal["forbids writes", "allows writes"]
"""A leader was told to take no writes of some partitions, or to take them again."""

LEADERS_SUFFIX = ".leaders.jsonl"
"""Of the file of a pod."""


class LeadersLog:
    """A killed process leaves no more than its last line torn."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def note(
        self,
        what: Leading | Forbidding | Literal["in sync"],
        group: int,
        term: int,
        partitions: str,
        **more: tuple[str, ...],
    ) -> None:
        line = {"t_s": time.monotonic(), "what": what, "group": group, "term": term, "partitions": partitions, **more}
        os.write(self._fd, orjson.dumps(line) + b"\n")
