"""Runs many schedules, and hunts planted errors: `python -m tests.consensus [SCHEDULES]`."""

from __future__ import annotations

import sys
import time
from collections import Counter

from tests.consensus.invariants import Violation
from tests.consensus.planted import PLANTED
from tests.consensus.schedules import run_schedule

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
    seen: Counter[str] = Counter()
    problems = 0
    for seed in range(schedules):
        if problem := problem_in(seed, seen):
            problems += 1
            print(f"schedule {seed}: {problem}", flush=True)
    print(f"{schedules} schedules, {problems} with a violation, in {time.process_time():.0f} CPU seconds")
    print("in all: " + ", ".join(f"{count} {what}" for what, count in seen.most_common()), flush=True)
    for name, planted in PLANTED.items():
        with planted.in_place():
            found = next((seed for seed in range(HUNTED) if problem_in(seed, seen)), None)
        problems += found is None
        print(f"planted: {name}: " + ("NOT FOUND" if found is None else f"found by schedule {found}"), flush=True)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
