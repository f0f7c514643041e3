"""The log of one replica in memory: a snapshot, the entries after it, and the membership that follows from both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from testbed.consensus.membership import Membership


@dataclass(frozen=True, slots=True)
class Entry:
    index: int
    term: int
    command: object
    """For the state machine, but for a Membership, and None: the entry with which a leader begins its term."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Stands for all entries up to `index`. Index 0 is that of a replica that has nothing yet."""

    index: int
    term: int
    membership: Membership
    state: object


class Log:
    """Indexes begin at 1 and have no gaps."""

    def __init__(self, snapshot: Snapshot, entries: Sequence[Entry] = ()) -> None:
        self.snapshot = snapshot
        self._entries = list(entries)
        self._changes = [entry for entry in entries if isinstance(entry.command, Membership)]

    @property
    def last_index(self) -> int:
        return self.snapshot.index + len(self._entries)

    @property
    def last_term(self) -> int:
        return self._entries[-1].term if self._entries else self.snapshot.term

    @property
    def entries(self) -> tuple[Entry, ...]:
        return tuple(self._entries)

    @property
    def membership(self) -> Membership:
        """The latest that is in the log: it holds as soon as it is there, committed or not (4.1)."""
        change = self._changes[-1].command if self._changes else self.snapshot.membership
        assert isinstance(change, Membership)
        return change

    @property
    def membership_index(self) -> int:
        return self._changes[-1].index if self._changes else self.snapshot.index

    def term_at(self, index: int) -> int | None:
        """None where there is no entry: beyond the end, or compacted away."""
        place = index - self.snapshot.index
        if place == 0:
            return self.snapshot.term
        return self._entries[place - 1].term if 0 < place <= len(self._entries) else None

    def is_behind(self, last_term: int, last_index: int) -> bool:
        """A log that ends like that is at least as up-to-date as this one (3.6.1)."""
        return (last_term, last_index) >= (self.last_term, self.last_index)

    def between(self, first: int, last: int) -> tuple[Entry, ...]:
        """The entries `first` to `last`, as far as they are there. `first` must not be compacted away."""
        assert first > self.snapshot.index, f"entry {first} is part of the snapshot at {self.snapshot.index}"
        return tuple(self._entries[first - self.snapshot.index - 1 : max(0, last - self.snapshot.index)])

    def missing_of(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Those from the first that is not here, or here with another term. Nothing may go if none conflicts: messages
        overtake each other, and a shorter one may be the older (3.5, rules 3 and 4 of AppendEntries)."""
        for place, entry in enumerate(entries):
            if self.term_at(entry.index) != entry.term:
                return entries[place:]
        return ()

    def put(self, entries: Sequence[Entry]) -> None:
        """Add entries in the place of all from the first one's index on."""
        first = entries[0].index
        assert self.snapshot.index < first <= self.last_index + 1
        self.truncate(first - 1)
        self._entries += entries
        self._changes += [entry for entry in entries if isinstance(entry.command, Membership)]

    def truncate(self, last_index: int) -> None:
        """Take away all entries after that one."""
        del self._entries[last_index - self.snapshot.index :]
        while self._changes and self._changes[-1].index > last_index:
            self._changes.pop()

    def replace_by(self, snapshot: Snapshot) -> None:
        """Put a snapshot in the place of what it stands for, and of all that does not follow from it (5.3)."""
        follows = self.term_at(snapshot.index) == snapshot.term
        self._entries = self._entries[snapshot.index - self.snapshot.index :] if follows else []
        self._changes = [change for change in self._changes if follows and change.index > snapshot.index]
        self.snapshot = snapshot

    def membership_at(self, index: int) -> Membership:
        for change in reversed(self._changes):
            if change.index <= index:
                assert isinstance(change.command, Membership)
                return change.command
        return self.snapshot.membership

    def last_index_until(self, index: int, term: int) -> int:
        """The last index up to `index` whose term is not above `term`: where two logs may agree at the latest."""
        index = min(index, self.last_index)
        while index > self.snapshot.index and self._entries[index - self.snapshot.index - 1].term > term:
            index -= 1
        return index
