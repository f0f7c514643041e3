"""The whole of a history: all that is wrong with it, by partition and time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from testbed.results.measure.histories.findings import Finding, Kind
from testbed.results.measure.histories.linearizability import linearizable
from testbed.results.measure.histories.operations import Operation, by_key
from testbed.results.measure.histories.owners import double_writes
from testbed.results.measure.histories.registers import findings_of

MOST_CONFIGURATIONS = 100_000
"""Of one key: about a second."""


@dataclass(frozen=True, slots=True)
class HistoryReport:
    findings: tuple[Finding, ...]
    """Sorted by partition, and by the time at which the operation was invoked."""
    gave_up: tuple[str, ...]
    """Keys of which nobody knows whether they are linearizable: too much was concurrent."""

    def of_kind(self, kind: Kind) -> list[Finding]:
        return [finding for finding in self.findings if finding.kind is kind]


def check(operations: Sequence[Operation], most_configurations: int = MOST_CONFIGURATIONS) -> HistoryReport:
    """Raises ValueError if a value is written twice to a key."""
    findings, gave_up = double_writes(operations), []
    for history in by_key(operations):
        findings += findings_of(history)
        answer = linearizable(history, most_configurations)
        if answer.gave_up:
            gave_up.append(history.key)
        elif answer.stuck:
            findings.append(Finding(Kind.NOT_LINEARIZABLE, answer.stuck))
    findings.sort(key=lambda finding: (finding.operation.partition, finding.operation.invoked_s))
    return HistoryReport(tuple(findings), tuple(gave_up))
