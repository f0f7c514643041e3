"""Runs many schedules, and hunts planted errors: `python -m tests.consensus [SCHEDULES]`."""

from __future__ import annotations

import sys
from collections import Counter

from tests.consensus.invariants import Violation
from tests.consensus.planted import PLANTED
from tests.consensus.schedules import run_schedule
from tests.simulated.hunt import hunt, run

HUNTED = 5_000
"""Schedules in which every planted error must be found."""


def problem_in(seed: int, seen: Counter[str]) -> str | None:
    try:
        seen.update(run_schedule(seed).seen)
    except (Violation, AssertionError) as error:
        return str(error)
    return None


def main() -> int:
    schedules = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    problems = run(schedules, problem_in, Counter())
    return 1 if problems + hunt(PLANTED, HUNTED, problem_in) else 0


if __name__ == "__main__":
    sys.exit(main())
