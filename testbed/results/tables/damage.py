"""What cannot be read of a result folder. Imports nothing: actors that only save facts load it too."""

from __future__ import annotations


class BadRunFolder(Exception):
    """`problems` are one line each: which file, and what is wrong with it."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
