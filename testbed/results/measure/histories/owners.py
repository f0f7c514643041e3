"""Writes of one partition that two owners took in turns: one of them did not know that it was the owner no more."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from testbed.results.measure.histories.findings import Finding, Kind
from testbed.results.measure.histories.operations import Operation, Outcome


def double_writes(operations: Iterable[Operation]) -> list[Finding]:
    """A write that began when another owner's was done, which in turn began when one of the former owner was done.

    That is so as well if a partition is moved and moved back: who does that gives each part of the history by itself.
    """
    taken: defaultdict[str, list[Operation]] = defaultdict(list)
    for operation in operations:
        if operation.is_write and operation.outcome is Outcome.OK and operation.owner is not None:
            taken[operation.partition].append(operation)
    return [finding for partition in sorted(taken) for finding in _double_writes(taken[partition])]


def _double_writes(writes: list[Operation]) -> list[Finding]:
    """In time that grows with the writes and the owners of the partition."""
    first_done_s: dict[str | None, float] = {}
    for write in writes:
        first_done_s[write.owner] = min(write.returned_s, first_done_s.get(write.owner, write.returned_s))
    usurping: dict[str | None, Operation] = {}
    """By owner: the first done write of another that began after one of the owner was done."""
    for write in writes:
        for owner, done_s in first_done_s.items():
            earliest = usurping.get(owner)
            first = earliest is None or write.returned_s < earliest.returned_s
            if owner != write.owner and write.invoked_s > done_s and first:
                usurping[owner] = write
    return [
        Finding(Kind.DOUBLE_WRITE, write, usurping[write.owner])
        for write in sorted(writes, key=lambda write: write.invoked_s)
        if write.owner in usurping and write.invoked_s > usurping[write.owner].returned_s
    ]
