"""Who takes part: voters, of which a majority decides, and learners, which only receive the log (4.2.1)."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Membership:
    """Names of replicas, each tuple in its order of sorting, no name in both."""

    voters: tuple[str, ...]
    learners: tuple[str, ...] = ()

    def everyone_but(self, name: str) -> list[str]:
        return [other for other in self.voters + self.learners if other != name]

    def majority_in(self, names: Container[str]) -> bool:
        return 2 * sum(voter in names for voter in self.voters) > len(self.voters)

    def majority_reached(self, value_of: Callable[[str], float]) -> float:
        """The highest value that a majority of the voters has reached; minus infinity without voters."""
        values = sorted(map(value_of, self.voters), reverse=True)
        return values[len(values) // 2] if values else float("-inf")

    def problem_with(self, new: Membership) -> str | None:
        """Why `new` may not follow. Majorities before and after overlap if one voter at most is new or gone (4.1)."""
        joining = [name for name in new.voters if name not in self.voters]
        leaving = [name for name in self.voters if name not in new.voters]
        if not new.voters:
            return "without voters nothing can be decided"
        if len(joining) + len(leaving) > 1:
            return f"one voter at a time can join or leave, not {', '.join(joining + leaving)}"
        strangers = [name for name in joining if name not in self.learners]
        if strangers:
            return f"{strangers[0]} is no learner yet: it would vote without the log, and nothing could be committed"
        return None
