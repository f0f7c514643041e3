"""Histories of a store that does everything right, for tests that then do something wrong."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from testbed.results.measure.histories.operations import Operation, Outcome


def write(
    value: str, begin: float, end: float, outcome: str = "ok", process: str = "p", owner: str | None = None
) -> Operation:
    return Operation(process, "k", "7", True, value, begin, end, Outcome(outcome), owner)


def read(
    value: str | None, begin: float, end: float, outcome: str = "ok", process: str = "p", owner: str | None = None
) -> Operation:
    return Operation(process, "k", "7", False, value, begin, end, Outcome(outcome), owner)


@dataclass
class Store:
    """Operations take effect at a moment within them; some answers never come."""

    random: Random
    keys: int
    processes: int
    values: dict[str, str] = field(default_factory=dict)

    def history(self, count: int) -> list[Operation]:
        random = self.random
        planned = []
        free_s = [random.random() for _ in range(self.processes)]
        for number in range(count):
            process = min(range(self.processes), key=free_s.__getitem__)
            begin_s = free_s[process]
            end_s = begin_s + random.uniform(0.001, 0.01)
            free_s[process] = end_s + random.uniform(0.0, 0.01)
            planned.append((random.uniform(begin_s, end_s), begin_s, end_s, f"p{process}", number))
        return [self._operation(*plan) for plan in sorted(planned)]

    def _operation(self, _: float, begin_s: float, end_s: float, process: str, number: int) -> Operation:
        random = self.random
        key = f"k{random.randrange(self.keys):04}"
        partition = key[-2:]
        outcome = random.choices((Outcome.OK, Outcome.UNKNOWN, Outcome.FAILED), (97, 2, 1))[0]
        if random.random() < 0.5:
            if outcome is Outcome.OK or (outcome is Outcome.UNKNOWN and random.random() < 0.5):
                self.values[key] = f"v{number}"
            return Operation(process, key, partition, True, f"v{number}", begin_s, end_s, outcome, "owner")
        return Operation(process, key, partition, False, self.values.get(key), begin_s, end_s, outcome)
