"""What a step wants done, and the order that a crash must not upset: messages wait for the writes they depend on."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

from testbed.consensus.log import Entry, Log, Snapshot
from testbed.consensus.outputs import Send, Write

M = TypeVar("M")
"""What is sent."""
Other = TypeVar("Other")
"""What else is put out."""


@dataclass(frozen=True, slots=True)
class _Pending:
    number: int
    first_index: int
    last_index: int


class Outbox(Generic[M, Other]):
    def __init__(self, term: int, vote: str | None, last_index: int) -> None:
        """As they are on the disk."""
        self.durable_index = last_index
        """Up to here, the log in memory is on the disk as well."""
        self._state = (term, vote)
        self._entries: tuple[Entry, ...] = ()
        self._snapshot: Snapshot | None = None
        self._number = 0
        self._pending: deque[_Pending] = deque()
        self._waiting: deque[tuple[int, Send[M]]] = deque()
        self._sends: list[Send[M]] = []
        self._outputs: list[Write | Send[M] | Other] = []

    def add(self, output: Send[M] | Other) -> None:
        self._outputs.append(output)

    def send(self, to: str, message: M) -> None:
        """After all writes so far, including that of this step."""
        self._sends.append(Send(to, message))

    def put_entries(self, entries: tuple[Entry, ...]) -> None:
        """They are new in the log; those of one step follow each other."""
        self._entries += entries

    def put_snapshot(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def has_written(self, term: int, vote: str | None) -> bool:
        """That, and all before it, is durable."""
        return not self._pending and self._state == (term, vote)

    def write(self, term: int, vote: str | None, log: Log) -> None:
        """Begin to write what has changed, if anything has. `log` is as it will be after it."""
        if self._state == (term, vote) and not self._entries and not self._snapshot:
            return
        first_index = log.last_index + 1
        if self._entries:
            first_index = self._entries[0].index
        elif self._snapshot and self._snapshot.index > self.durable_index:
            first_index = 1  # all is replaced
        self._number += 1
        self._pending.append(_Pending(self._number, first_index, log.last_index))
        self._outputs.append(Write(self._number, term, vote, self._entries, self._snapshot))
        self.durable_index = min(self.durable_index, first_index - 1)
        self._state, self._entries, self._snapshot = (term, vote), (), None

    def persisted(self, number: int) -> None:
        while self._pending and self._pending[0].number <= number:
            self.durable_index = self._pending.popleft().last_index
        for pending in self._pending:
            self.durable_index = min(self.durable_index, pending.first_index - 1)
        while self._waiting and self._waiting[0][0] <= number:
            self._outputs.append(self._waiting.popleft()[1])

    def let_go(self) -> None:
        """Messages of this step, if no write is under way; else they wait for the last that is."""
        if self._pending:
            self._waiting += [(self._number, send) for send in self._sends]
        else:
            self._outputs += self._sends
        self._sends = []

    def take(self) -> tuple[Write | Send[M] | Other, ...]:
        outputs, self._outputs = tuple(self._outputs), []
        return outputs
