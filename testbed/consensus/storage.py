"""What a replica's disk holds, and what a write makes of it."""

from __future__ import annotations

from dataclasses import dataclass

from testbed.consensus.log import Entry, Log, Snapshot
from testbed.consensus.membership import Membership
from testbed.consensus.outputs import Write


@dataclass(frozen=True, slots=True)
class Stored:
    """The state machine begins at the snapshot."""

    term: int
    vote: str | None
    snapshot: Snapshot
    entries: tuple[Entry, ...]

    @staticmethod
    def nothing(membership: Membership | None = None) -> Stored:
        """For a replica that starts for the first time. The first members of all get the same membership; who joins
        later gets none, and learns it from the leader."""
        return Stored(0, None, Snapshot(0, 0, membership or Membership(()), None), ())

    def after(self, write: Write) -> Stored:
        log = Log(self.snapshot, self.entries)
        if write.snapshot:
            log.replace_by(write.snapshot)
        if write.entries:
            log.put(write.entries)
        return Stored(write.term, write.vote, log.snapshot, log.entries)
