"""What must hold after every step of every replica: Raft's five safety properties, and reads that are linearizable.

Ongaro's figure 3.2 has the properties. Those about whole logs are checked entry by entry, as entries are written: what
followed from the entries before still does.
"""

from __future__ import annotations

from collections.abc import Sequence

from testbed.consensus.log import Entry, Snapshot
from testbed.consensus.outputs import Role, Write
from testbed.consensus.replica import Replica


class Violation(Exception):
    """A property does not hold."""


class Invariants:
    """Sees everything of a whole cluster, as nobody in it can."""

    def __init__(self) -> None:
        self.commits: dict[int, Entry] = {}
        """By term of the leader that committed: its last entry that was."""
        self._leaders: dict[int, str] = {}
        self._written: dict[tuple[int, int], tuple[int | None, object]] = {}
        self._applied: list[Entry] = []
        self._digests = [0]
        self._done_index = 0

    def check_leader(self, replica: Replica) -> None:
        """Election safety: one leader a term. Leader completeness: it has what was committed in earlier terms."""
        leader = self._leaders.setdefault(replica.term, replica.name)
        if leader != replica.name:
            raise Violation(f"election safety: {leader} and {replica.name} both lead in term {replica.term}")
        for term, entry in self.commits.items():
            if term < replica.term and entry.index > replica.log.snapshot.index:
                found = replica.log.term_at(entry.index)
                if found != entry.term:
                    lacking = f"{replica.name} leads in term {replica.term} with {found} at {entry.index}"
                    raise Violation(f"leader completeness: {lacking}, {entry} was committed in term {term}")

    def check_write(self, replica: Replica, write: Write, last_index: int) -> None:
        """Log matching: entries of one index and term are the same, and so are those before. Leader append-only."""
        if write.snapshot:
            self.check_entries(replica.log.snapshot.term, replica.log.entries)
        if not write.entries:
            return
        first = write.entries[0].index
        if replica.role is Role.LEADER and first <= last_index:
            raise Violation(
                f"leader append-only: {replica.name} overwrites from {first}, its log ended at {last_index}"
            )
        self.check_entries(replica.log.term_at(first - 1), write.entries)

    def check_entries(self, previous: int | None, entries: Sequence[Entry]) -> None:
        for entry in entries:
            here = (previous, entry.command)
            there = self._written.setdefault((entry.index, entry.term), here)
            if there != here:
                raise Violation(f"log matching: {entry} after term {previous}, elsewhere {there}")
            previous = entry.term

    def check_commit(self, replica: Replica) -> None:
        """To be called when a leader's commit index has moved."""
        term = replica.log.term_at(replica.commit_index)
        assert term is not None
        self.commits[replica.term] = Entry(replica.commit_index, term, None)

    def check_applied(self, name: str, applied_index: int, entries: Sequence[Entry]) -> None:
        """State machine safety: nobody applies another entry at the same index; and each applies all in their order."""
        for entry in entries:
            applied_index += 1
            if entry.index != applied_index:
                raise Violation(f"state machine safety: {name} applies {entry} after {applied_index - 1}")
            if entry.index > len(self._applied):
                self._applied.append(entry)
                self._digests.append(hash((self._digests[-1], entry.term, entry.command)))
            elif self._applied[entry.index - 1] != entry:
                raise Violation(f"state machine safety: {name} applies {entry}, not {self._applied[entry.index - 1]}")

    def check_restored(self, name: str, applied_index: int, snapshot: Snapshot) -> None:
        if snapshot.index <= applied_index or snapshot.state != self.state_at(snapshot.index):
            raise Violation(f"state machine safety: {name} goes from {applied_index} to {snapshot}")

    def state_at(self, index: int) -> int:
        """The state machine's state after that entry: it stands for all that was applied up to there."""
        if index >= len(self._digests):
            raise Violation(f"state machine safety: nobody has applied {index} yet")
        return self._digests[index]

    # --- clients ----------------------------------------------------------------------------------------------

    def begun(self) -> int:
        """An operation begins: it must see what all that are done have written or seen."""
        return self._done_index

    def done(self, what: str, begun: int, index: int) -> None:
        """It is done, and took place at that index of the one order of all entries."""
        if index < begun:
            raise Violation(f"linearizability: {what} saw the state at {index}, and what was done before it at {begun}")
        self._done_index = max(self._done_index, index)
