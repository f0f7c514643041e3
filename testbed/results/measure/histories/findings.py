"""What can be wrong with a history."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from testbed.results.measure.histories.operations import Operation


class Kind(Enum):
    LOST_WRITE = "lost write"
    """Acknowledged, but what was read of the key last is older (`other`)."""
    DOUBLE_WRITE = "double write"
    """Taken by an owner after another owner had taken one (`other`) since the former's last."""
    STALE_READ = "stale read"
    """Of a value that a write (`other`) had overwritten before the read began."""
    NON_MONOTONIC_READ = "non-monotonic read"
    """Of a value older than what the same process has read before (`other`)."""
    UNWRITTEN_READ = "read of what was not written"
    """By nobody until then, or only by a write that is said to have failed (`other`)."""
    NOT_LINEARIZABLE = "not linearizable"
    """No order of the key's operations explains this one, whatever came before it."""


@dataclass(frozen=True, slots=True)
class Finding:
    kind: Kind
    operation: Operation
    other: Operation | None = None
