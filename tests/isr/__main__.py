"""Runs many schedules, and hunts planted errors: `python -m tests.isr [SCHEDULES]`."""

from __future__ import annotations

import sys
from collections import Counter
from functools import partial

from testbed.isr.outputs import Acks
from tests.isr.invariants import Lost, Violation
from tests.isr.planted import PLANTED
from tests.isr.schedules import run_schedule
from tests.isr.simulation import Setting
from tests.simulated.hunt import hunt, run

HUNTED = 20_000
"""Schedules in which every planted error must be found."""
SAFE = Setting()
LOSING = {
    "unclean election": Setting(unclean=True),
    "acks=1": Setting(acks=Acks.LEADER),
    "acks=0": Setting(acks=Acks.NONE),
}
"""Settings that may lose what they have acknowledged."""


def problem_in(setting: Setting, seed: int, seen: Counter[str]) -> Exception | None:
    try:
        seen.update(run_schedule(seed, setting).seen)
    except (Violation, AssertionError) as error:
        return error
    return None


def main() -> int:
    schedules = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    problems = run(schedules, partial(problem_in, SAFE), Counter())
    for name, setting in LOSING.items():
        found = Counter(type(problem_in(setting, seed, Counter())) for seed in range(schedules // 10))
        problems += not found[Lost]
        print(f"{name}: {found[Lost]} of {schedules // 10} schedules lose what was acknowledged", flush=True)
    return 1 if problems + hunt(PLANTED, HUNTED, partial(problem_in, SAFE)) else 0


if __name__ == "__main__":
    sys.exit(main())
