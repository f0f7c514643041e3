"""What clients write to a store's keys and read of them, so that whoever checks it can tell who wrote what was read.

It imports neither Locust nor gevent.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import count
from random import Random

from loadgen.settings import OPERATION_KEY, Operations, RequestTemplate


@dataclass(frozen=True, slots=True)
class Operation:
    """A write of `value`, or a read where it is None. `process` is None where each is one of its own."""

    process: str | None
    key: str
    value: str | None
    owner_header: str


class OperationDraw:
    """One for all users of a load process. Values are unique to `name`."""

    def __init__(self, operations: Operations, name: str, random: Random) -> None:
        self._operations = operations
        self._name = name
        self._random = random
        self._numbers = count(1)

    def next(
        self, request: RequestTemplate, process: str | None, client: str | None = None
    ) -> tuple[RequestTemplate, Operation]:
        """The request as it is sent, and what it does. `client` is the id of its client, if that has one."""
        by_id = client is not None and self._operations.by_ids
        key = f"{client}" if by_id else f"{self._operations.prefix}{self._random.randrange(self._operations.keys)}"
        value = f"{self._name}-{next(self._numbers)}" if request.method == "PUT" else None
        sent = replace(request, path=request.path.replace(OPERATION_KEY, key), body=value)
        return sent, Operation(process, key, value, self._operations.owner)
