"""What was pushed is kept by content."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import orjson

from testbed.emulation.processes.pushed import Contents, PushedResources, lines


class Master:
    """A master's process, and who supervises one after the other."""

    def __init__(self, pushed: PushedResources | None = None) -> None:
        self.pushed = pushed or PushedResources()
        self._contents = Contents()

    def numbers(self, resources: Sequence[Mapping[str, object]]) -> tuple[int, ...]:
        digests = self._contents.digests(resources)
        self.pushed.add(self._contents.take_new())
        return self.pushed.numbers(digests)

    def compressed(self) -> bytes:
        return self.pushed.compressed()


def assignment(name: str, *endpoints: str) -> dict[str, object]:
    return {"@type": "ClusterLoadAssignment", "cluster_name": name, "endpoints": list(endpoints)}


def test_equal_contents_have_one_number_and_are_kept_once() -> None:
    pushed = Master()
    web, orders, longer = assignment("web", "a"), assignment("orders", "a"), assignment("web", "a", "b")
    first = pushed.numbers([web, orders])
    assert (first, pushed.numbers([longer, orders]), pushed.numbers([])) == ((0, 1), (2, 1), ())
    # Made anew, for another proxy or after a change back.
    assert pushed.numbers([assignment("web", "a"), orders]) is first
    # After the master was killed.
    assert Master(pushed.pushed).numbers([assignment("web", "a"), orders]) is first
    assert [orjson.loads(line) for line in lines(pushed.compressed())] == [web, orders, longer]


def test_what_is_kept_can_be_read_while_more_comes() -> None:
    pushed = Master()
    chance = random.Random(1)
    contents = [assignment("web", *(f"{chance.random()}" for _ in range(20_000))) for _ in range(5)]
    for number, content in enumerate(contents):
        assert pushed.numbers([content]) == (number,)
        assert [orjson.loads(line) for line in lines(pushed.compressed())] == contents[: number + 1]
    assert list(lines(PushedResources().compressed())) == list(lines(b"")) == []
