"""What clients want of a store, what they are told, and the state machine: what every replica makes of the log."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

DONE, NOTHING_WRITTEN, NO_KEY, REFUSED, UNKNOWN = 200, 204, 400, 503, 504
"""Statuses. NO_KEY: the rule makes no partition of it. REFUSED: it was not done, and will not be. UNKNOWN: it may have
been, or may be yet."""

REMEMBERED: Final = 10_000
"""So many of the last writes are known by their ids: if one comes again, it is not done again."""


@dataclass(frozen=True, slots=True)
class Put:
    """`id` names the write, however often it comes: as a proxy that repeats a request leaves x-request-id alone."""

    id: str
    key: str
    value: str


@dataclass(frozen=True, slots=True)
class Get:
    key: str


@dataclass(frozen=True, slots=True)
class Ask:
    """From a replica that does not lead to the one that does; `number` is the asker's own."""

    number: int
    what: Put | Get


@dataclass(frozen=True, slots=True)
class Answer:
    """`owner` is who took a write: the leader and its term, which no other ever has. Of a read it is the follower that
    answered, if one did."""

    status: int
    body: str = ""
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Told:
    number: int
    answer: Answer


class Values:
    """Of all keys, as they are after the entries that were applied."""

    def __init__(self) -> None:
        self._values: dict[str, str] = {}
        self._ids: OrderedDict[str, None] = OrderedDict()

    def apply(self, put: Put) -> None:
        if put.id in self._ids:
            return
        self._values[put.key] = put.value
        self._ids[put.id] = None
        if len(self._ids) > REMEMBERED:
            self._ids.popitem(last=False)

    def get(self, key: str) -> Answer:
        value = self._values.get(key)
        return Answer(NOTHING_WRITTEN) if value is None else Answer(DONE, value)

    def state(self) -> dict[str, Any]:
        """Plain values, for a snapshot."""
        return {"values": dict(self._values), "ids": list(self._ids)}

    def restore(self, state: Mapping[str, Any] | None) -> None:
        self._values = dict(state["values"]) if state else {}
        self._ids = OrderedDict.fromkeys(state["ids"] if state else ())
