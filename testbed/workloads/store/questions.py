"""What clients wait for: done here by who leads, or asked of the replica that does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count

from testbed.workloads.store.commands import REFUSED, UNKNOWN, Answer, Ask, Get, Put, Told

Waiting = asyncio.Future[Answer]


class Questions:
    """Of one replica. `in_vain` is what a client is told that had no answer within `patience_s`."""

    def __init__(self, name: str, patience_s: float, in_vain: str) -> None:
        self._name = name
        self._patience_s = patience_s
        self._in_vain = in_vain
        self._asked: dict[int, Waiting] = {}
        self._numbers = count()

    async def answer(
        self, leader: str | None, what: Put | Get, begin: Callable[[Waiting], None], ask: Callable[[str, Ask], bool]
    ) -> Answer:
        """`begin` does it where this replica leads, `ask` sends it to one that does: False if that is lost already."""
        waiting: Waiting = asyncio.get_running_loop().create_future()
        number = next(self._numbers)
        if leader is None:
            return Answer(REFUSED, "no leader is known")
        if leader == self._name:
            begin(waiting)
        elif ask(leader, Ask(number, what)):
            self._asked[number] = waiting
        else:
            return Answer(REFUSED, f"the leader {leader} is out of reach")
        try:
            async with asyncio.timeout(self._patience_s):
                return await waiting
        except TimeoutError:
            return Answer(UNKNOWN, self._in_vain)
        finally:
            self._asked.pop(number, None)

    def told(self, told: Told) -> None:
        """Who asked may have given up."""
        if told.number in self._asked:
            settle(self._asked[told.number], told.answer)


def to_be_told(number: int, tell: Callable[[Told], object]) -> Waiting:
    """For what another replica asks."""
    waiting: Waiting = asyncio.get_running_loop().create_future()
    waiting.add_done_callback(lambda done: tell(Told(number, done.result())))
    return waiting


def settle(waiting: Waiting, answer: Answer) -> None:
    """Whoever waited may have gone."""
    if not waiting.done():
        waiting.set_result(answer)
