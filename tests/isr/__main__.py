"""Runs many schedules, and hunts planted errors: `python -m tests.isr [SCHEDULES]`."""

from __future__ import annotations

import sys
import time
from collections import Counter

from testbed.isr.outputs import Acks
from tests.isr.invariants import Lost, Violation
from tests.isr.planted import PLANTED
from tests.isr.schedules import run_schedule
from tests.isr.simulation import Setting

HUNTED = 20_000
"""Schedules in which every planted error must be found."""
SAFE = Setting()
LOSING = {
    "unclean election": Setting(unclean=True),
    "acks=1": Setting(acks=Acks.LEADER),
    "acks=0": Setting(acks=Acks.NONE),
}
"""Settings that may lose what they have acknowledged."""


def problem_in(seed: int, setting: Setting, seen: Counter[str]) -> Exception | None:
    try:
        seen.update(run_schedule(seed, setting).seen)
    except (Violation, AssertionError) as error:
        return error
    return None


def main() -> int:
    schedules = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    seen: Counter[str] = Counter()
    problems = 0
    for seed in range(schedules):
        if problem := problem_in(seed, SAFE, seen):
            problems += 1
            print(f"schedule {seed}: {problem}", flush=True)
    print(f"{schedules} schedules, {problems} with a violation, in {time.process_time():.0f} CPU seconds")
    print("in all: " + ", ".join(f"{count} {what}" for what, count in seen.most_common()), flush=True)
    for name, setting in LOSING.items():
        found = Counter(type(problem_in(seed, setting, seen)) for seed in range(schedules // 10))
        problems += not found[Lost]
        print(f"{name}: {found[Lost]} of {schedules // 10} schedules lose what was acknowledged", flush=True)
    for name, planted in PLANTED.items():
        with planted.in_place():
            at = next((seed for seed in range(HUNTED) if problem_in(seed, SAFE, seen)), None)
        problems += at is None
        print(f"planted: {name}: " + ("NOT FOUND" if at is None else f"found by schedule {at}"), flush=True)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
