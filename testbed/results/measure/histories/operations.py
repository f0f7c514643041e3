"""One thing that a client did to one key, and what came back."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum


class Outcome(Enum):
    OK = "ok"
    FAILED = "failed"
    """It did not happen, and will not."""
    UNKNOWN = "unknown"
    """It may have happened, or may happen yet: a time-out proves nothing."""


@dataclass(frozen=True, slots=True)
class Operation:
    """A write or a read. What is written is unique to its key; None is what is read before the first write.

    A process is a client that does one thing after the other. Times are seconds of one clock; what returns at the very
    moment at which another is invoked may have come before or after it. `owner` is who says that it took a write, or
    the follower that answered a read.
    """

    process: str
    key: str
    partition: str
    is_write: bool
    value: str | None
    invoked_s: float
    returned_s: float
    outcome: Outcome
    owner: str | None = None

    @property
    def done_s(self) -> float:
        """When its effect, if any, was there at the latest."""
        return self.returned_s if self.outcome is Outcome.OK else math.inf


@dataclass(frozen=True, slots=True)
class KeyHistory:
    """Of one key, each in the order of invocation. Reads that did not return a value say nothing."""

    key: str
    writes: tuple[Operation, ...]
    reads: tuple[Operation, ...]
    failed: tuple[Operation, ...]
    """Writes that are not to be seen."""


def by_key(operations: Iterable[Operation]) -> list[KeyHistory]:
    """Sorted by key. Raises ValueError if a value is written twice to a key: then nobody can say which was read."""
    of_key: defaultdict[str, list[Operation]] = defaultdict(list)
    for operation in operations:
        of_key[operation.key].append(operation)
    return [_history(key, of_key[key]) for key in sorted(of_key)]


def _history(key: str, operations: list[Operation]) -> KeyHistory:
    operations.sort(key=lambda operation: operation.invoked_s)
    writes = [operation for operation in operations if operation.is_write]
    values = {write.value for write in writes}
    if len(values) < len(writes) or None in values:
        raise ValueError(f"key {key}: each write needs a value of its own, so that what is read says who wrote it")
    return KeyHistory(
        key,
        tuple(write for write in writes if write.outcome is not Outcome.FAILED),
        tuple(read for read in operations if not read.is_write and read.outcome is Outcome.OK),
        tuple(write for write in writes if write.outcome is Outcome.FAILED),
    )
