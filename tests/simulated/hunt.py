"""Many schedules one after the other, from the command line."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

Problem = Callable[[int, Counter[str]], object | None]
"""What goes wrong in the schedule of a seed, if anything does; what was seen is added to the counter."""


class Planted(Protocol):
    def in_place(self) -> AbstractContextManager[None]: ...


def run(schedules: int, problem_in: Problem, seen: Counter[str]) -> int:
    """How many of the schedules have a problem, which there should be none of."""
    problems = 0
    for seed in range(schedules):
        if problem := problem_in(seed, seen):
            problems += 1
            print(f"schedule {seed}: {problem}", flush=True)
    print(f"{schedules} schedules, {problems} with a violation, in {time.process_time():.0f} CPU seconds")
    print("in all: " + ", ".join(f"{count} {what}" for what, count in seen.most_common()), flush=True)
    return problems


def hunt(planted: Mapping[str, Planted], schedules: int, problem_in: Problem) -> int:
    """How many planted errors are not found in so many schedules."""
    missed = 0
    for name, each in planted.items():
        with each.in_place():
            found = next((seed for seed in range(schedules) if problem_in(seed, Counter())), None)
        missed += found is None
        print(f"planted: {name}: " + ("NOT FOUND" if found is None else f"found by schedule {found}"), flush=True)
    return missed
