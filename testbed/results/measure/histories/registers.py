"""What single reads prove: acknowledged writes that are gone, reads of what had been overwritten, time running back.

A value is older than another if its write was done before the other's was invoked. What is concurrent proves nothing,
so each finding is certain, but a history without findings may still not be linearizable.
"""

from __future__ import annotations

import bisect
import math
from itertools import accumulate

from testbed.results.measure.histories.findings import Finding, Kind
from testbed.results.measure.histories.operations import KeyHistory, Operation, Outcome


def findings_of(history: KeyHistory) -> list[Finding]:
    writers: dict[str | None, Operation] = {write.value: write for write in history.writes}
    readable, findings = [], []
    for read in history.reads:
        writer = writers.get(read.value)
        if read.value is None or (writer and writer.invoked_s <= read.returned_s):
            readable.append(read)
        else:
            findings.append(Finding(Kind.UNWRITTEN_READ, read, writer or _failed_writer(history, read)))
    done_s = {read.value: writers[read.value].done_s if read.value is not None else -math.inf for read in readable}
    stale = _stale_reads(history, readable, done_s)
    findings += _lost_writes(history, readable, done_s)
    findings += [Finding(Kind.STALE_READ, read, newer) for read, newer in stale]
    findings += _non_monotonic_reads(readable, writers, done_s)
    return findings


def _failed_writer(history: KeyHistory, read: Operation) -> Operation | None:
    return next((write for write in history.failed if write.value == read.value), None)


def _acknowledged(history: KeyHistory) -> list[Operation]:
    return [write for write in history.writes if write.outcome is Outcome.OK]


def _stale_reads(
    history: KeyHistory, reads: list[Operation], done_s: dict[str | None, float]
) -> list[tuple[Operation, Operation]]:
    """Each with a write that was acknowledged before the read began, and began after what was read was done."""
    acknowledged = sorted(_acknowledged(history), key=lambda write: write.returned_s)
    returned_s = [write.returned_s for write in acknowledged]
    latest = list(accumulate(acknowledged, _later))
    stale = []
    for read in reads:
        before = bisect.bisect_left(returned_s, read.invoked_s)
        if before and done_s[read.value] < latest[before - 1].invoked_s:
            stale.append((read, latest[before - 1]))
    return stale


def _later(one: Operation, other: Operation) -> Operation:
    return max(one, other, key=lambda write: write.invoked_s)


def _lost_writes(history: KeyHistory, reads: list[Operation], done_s: dict[str | None, float]) -> list[Finding]:
    """Acknowledged, and the last that was read of the key is older. Reads are the last if none began after they had
    returned; if one of several sees the write or a newer one, it is not lost. What a follower lacks proves nothing."""
    reads = [read for read in reads if read.owner is None]
    last_invoked_s = max((read.invoked_s for read in reads), default=math.inf)
    last = [read for read in reads if read.returned_s >= last_invoked_s]
    if not last:
        return []
    newest = max(last, key=lambda read: done_s[read.value])
    began_s = min(read.invoked_s for read in last)
    return [
        Finding(Kind.LOST_WRITE, write, newest)
        for write in _acknowledged(history)
        if write.returned_s < began_s and done_s[newest.value] < write.invoked_s
    ]


def _non_monotonic_reads(
    reads: list[Operation], writers: dict[str | None, Operation], done_s: dict[str | None, float]
) -> list[Finding]:
    """A process reads something older than it has read before."""
    newest: dict[str, Operation] = {}
    findings = []
    for read in reads:
        before = newest.get(read.process)
        if before and done_s[read.value] < writers[before.value].invoked_s:
            findings.append(Finding(Kind.NON_MONOTONIC_READ, read, before))
        elif read.value is not None and (not before or writers[before.value].invoked_s < writers[read.value].invoked_s):
            newest[read.process] = read
    return findings
