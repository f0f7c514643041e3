"""Runs many schedules, and hunts planted errors: `python -m tests.control.masters [SCHEDULES]`."""

from __future__ import annotations

import sys
from collections import Counter

from tests.control.masters.planted import PLANTED
from tests.control.masters.schedules import run_schedule
from tests.control.masters.simulation import Violation
from tests.simulated.hunt import hunt, run

COSTS = 20
"""A schedule of masters costs as much as so many of the log alone."""
HUNTED = 1_000
"""Schedules in which every planted error must be found."""


def problem_in(seed: int, seen: Counter[str]) -> Exception | None:
    try:
        seen.update(run_schedule(seed).seen)
    except (Violation, AssertionError) as error:
        return error
    return None


def main() -> int:
    schedules = (int(sys.argv[1]) if len(sys.argv) > 1 else 100_000) // COSTS
    return 1 if run(schedules, problem_in, Counter()) + hunt(PLANTED, HUNTED, problem_in) else 0


if __name__ == "__main__":
    sys.exit(main())
