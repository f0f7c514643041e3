"""Is there an order of a key's operations, each at a moment between its invocation and its return, that explains all
that was read?

Wing and Gong's search ("Testing and verifying concurrent objects", 1993), which remembers the configurations that it
has been to (G. Lowe, "Testing for linearizability", 2016). As every value is written once, a value that is overwritten
never comes back: so reads are taken as soon as they can be, and a value is left only when all its reads have been.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from testbed.results.measure.histories.operations import KeyHistory, Operation, Outcome


@dataclass(frozen=True, slots=True)
class Linearizable:
    """`stuck` is the operation that no order explains; `gave_up`: the search was too long to say anything."""

    stuck: Operation | None = None
    gave_up: bool = False


@dataclass(frozen=True, slots=True)
class _Configuration:
    """In the order are all operations before `base`, and from it on those of the bits of `done`. `value` is there."""

    base: int
    done: int
    value: str | None


def linearizable(history: KeyHistory, most_configurations: int) -> Linearizable:
    search = _Search(history)
    start = search.settle(_Configuration(0, 0, None))
    seen, todo = {start}, [start]
    furthest = start
    while todo:
        configuration = todo.pop()
        if search.is_complete(configuration):
            return Linearizable()
        furthest = max(furthest, configuration, key=lambda one: one.base)
        for write in search.next_writes(configuration):
            following = search.settle(search.take(configuration, write))
            if following not in seen:
                if len(seen) >= most_configurations:
                    return Linearizable(gave_up=True)
                seen.add(following)
                todo.append(following)
    return Linearizable(stuck=search.operations[furthest.base])


class _Search:
    def __init__(self, history: KeyHistory) -> None:
        read = {operation.value for operation in history.reads}
        """A write of unknown outcome that nobody has read may as well come after everything."""
        writes = [write for write in history.writes if write.outcome is Outcome.OK or write.value in read]
        self.operations = sorted((*writes, *history.reads), key=lambda operation: operation.invoked_s)
        self._reads_of: defaultdict[str | None, list[int]] = defaultdict(list)
        for place, operation in enumerate(self.operations):
            if not operation.is_write:
                self._reads_of[operation.value].append(place)
        self._done_s = [self._latest_s(operation) for operation in self.operations]

    def _latest_s(self, operation: Operation) -> float:
        """When its place in the order is behind it: a write is there before any read of it has returned."""
        if not operation.is_write:
            return operation.returned_s
        reads = [self.operations[place].returned_s for place in self._reads_of[operation.value]]
        return min([operation.done_s, *reads])

    def is_complete(self, configuration: _Configuration) -> bool:
        return configuration.base == len(self.operations)

    def take(self, configuration: _Configuration, place: int) -> _Configuration:
        operation = self.operations[place]
        value = operation.value if operation.is_write else configuration.value
        base, done = configuration.base, configuration.done | 1 << (place - configuration.base)
        while done & 1:
            base, done = base + 1, done >> 1
        return _Configuration(base, done, value)

    def settle(self, configuration: _Configuration) -> _Configuration:
        """With all reads of the present value that may come now: to take them later explains nothing more."""
        for place in self._reads_of[configuration.value]:
            if not self._is_done(configuration, place):
                if not self._may_be_next(configuration, place):
                    break
                configuration = self.take(configuration, place)
        return configuration

    def next_writes(self, configuration: _Configuration) -> list[int]:
        """Those that may come now, the last to return first: the search goes on with the last of the list."""
        if any(not self._is_done(configuration, place) for place in self._reads_of[configuration.value]):
            return []
        places = [place for place in self._possible(configuration) if self.operations[place].is_write]
        return sorted(places, key=lambda place: -self._done_s[place])

    def _is_done(self, configuration: _Configuration, place: int) -> bool:
        return place < configuration.base or bool(configuration.done >> (place - configuration.base) & 1)

    def _possible(self, configuration: _Configuration) -> list[int]:
        """Operations that were invoked before any other that is not in the order yet was done."""
        places = []
        first_done_s = float("inf")
        for place in range(configuration.base, len(self.operations)):
            if self.operations[place].invoked_s > first_done_s:
                break
            if not self._is_done(configuration, place):
                places.append(place)
                first_done_s = min(first_done_s, self._done_s[place])
        return places

    def _may_be_next(self, configuration: _Configuration, place: int) -> bool:
        invoked_s = self.operations[place].invoked_s
        return all(
            self._is_done(configuration, before) or self._done_s[before] >= invoked_s
            for before in range(configuration.base, place)
        )
