"""What must hold of in-sync replicas in every schedule; and what only holds if no election is unclean and nothing is
acknowledged that not all in sync have. The check of the latter is the same for all settings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from testbed.consensus.log import Entry, Log
from testbed.consensus.storage import Stored
from testbed.isr.outputs import Acks
from testbed.isr.replica import Replica


class Violation(Exception):
    """The text says of what."""


class Lost(Violation):
    """An acknowledged write is not there any more."""


class Invariants:
    def __init__(self, unclean: bool, acks: Acks, min_insync_replicas: int) -> None:
        self.acknowledged: dict[int, object] = {}
        """By index."""
        self._unclean = unclean
        self._acks = acks
        self._min_insync_replicas = min_insync_replicas
        self._entries: dict[tuple[int, int], object] = {}
        self._applied: dict[int, Entry] = {}
        self._leaders: dict[int, str] = {}
        self._newest_epoch = 0

    def check_entry(self, entry: Entry) -> None:
        """Of an epoch and index there is one, whoever has it."""
        first = self._entries.setdefault((entry.term, entry.index), entry.command)
        if first != entry.command:
            raise Violation(f"entry {entry.index} of epoch {entry.term} is {first} and {entry.command}")

    def acknowledge(self, index: int, epoch: int, command: object, disks: Iterable[Stored]) -> None:
        """With acks=all, so many have it on disk as are asked for."""
        self.acknowledged[index] = command
        having = sum(Log(disk.snapshot, disk.entries).term_at(index) == epoch for disk in disks)
        if self._acks is Acks.ALL and not self._unclean and having < self._min_insync_replicas:
            raise Violation(f"write {command} is acknowledged, and {having} have it")

    def check_leader(self, replica: Replica, incarnation: str) -> None:
        """One an epoch, which has everything that was acknowledged."""
        epoch = replica.partition.epoch
        if self._leaders.setdefault(epoch, incarnation) != incarnation:
            raise Violation(f"{self._leaders[epoch]} and {incarnation} lead in epoch {epoch}")
        if epoch > self._newest_epoch:
            self._newest_epoch = epoch
            self.check_acknowledged(replica)

    def check_acknowledged(self, replica: Replica) -> None:
        log = replica.log.entries
        for index, command in self.acknowledged.items():
            if index > len(log) or log[index - 1].command != command:
                raise Lost(f"{replica.name} leads in epoch {replica.partition.epoch} without write {command}")

    def check_applied(self, name: str, entries: Sequence[Entry]) -> None:
        """All apply the same, unless an election was unclean."""
        for entry in entries:
            first = self._applied.setdefault(entry.index, entry)
            if first != entry and not self._unclean:
                raise Violation(f"{name} applies {entry}, another one {first}")

    def check_restored(self, name: str) -> None:
        if not self._unclean:
            raise Violation(f"{name} takes back what it has applied")

    def check_read(self, replica: Replica, begun: int) -> None:
        """By the newest leader: nothing that was acknowledged before the read is missing in what is read. What not all
        in sync have is not read, even if it was acknowledged."""
        if self._unclean or self._acks is not Acks.ALL or replica.partition.epoch != self._newest_epoch:
            return
        if replica.applied_index < begun:
            raise Violation(f"{replica.name} reads what entry {replica.applied_index} has left, after {begun}")

    def last_acknowledged(self) -> int:
        return max(self.acknowledged, default=0)
