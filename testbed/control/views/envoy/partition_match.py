"""How a route asks which partition a request is of.

Owns what Envoy's header matchers can say of it. Where the rule allows it, sidecars match the header that carries the
key itself, and compute nothing; else they match the partition that `partition_filter` has written. The rule in Python,
for everybody else, is `control.cells.partitions`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any, Final, Protocol

from testbed.control.cells.ownership import Owned
from testbed.control.cells.partitions import MAX_DIGITS
from testbed.control.views.envoy.access_log import PARTITION_HEADER
from testbed.objects.cells import PartitionMap, PartitionRule

Headers = list[dict[str, Any]]
"""Matchers of headers, all of which must hold."""

_DECIMAL: Final = f"[0-9]{{1,{MAX_DIGITS}}}"


class PartitionMatch(Protocol):
    def any_of(self, owned: Sequence[Owned]) -> list[Headers]:
        """That the partition is one of these: the alternatives, each for a route of its own."""
        ...


@dataclass(frozen=True, slots=True)
class Computed:
    """By what a filter has written."""

    def any_of(self, owned: Sequence[Owned]) -> list[Headers]:
        return [[_in_range(PARTITION_HEADER, run.start, run.end)] for run in owned]


COMPUTED: Final = Computed()


@dataclass(frozen=True, slots=True)
class Digits:
    """By the key's own digits. `places` are all different, from the most significant one on; 1 is the key's last."""

    header: str
    places: tuple[int, ...]

    def any_of(self, owned: Sequence[Owned]) -> list[Headers]:
        width = len(self.places)
        if [(run.start, run.end) for run in owned] == [(0, 10**width)]:
            return [[_matches(self.header, _DECIMAL)]]
        return [[_matches(self.header, _pattern(self.places, tuple(owned)))]]


@dataclass(frozen=True, slots=True)
class Ranges:
    """By the key's value. `bounds` are the first ids of the partitions, rising."""

    header: str
    bounds: tuple[int, ...]

    def any_of(self, owned: Sequence[Owned]) -> list[Headers]:
        bounds = (*self.bounds, 10**MAX_DIGITS)
        # Envoy also reads signs and any number of zeros as a part of a number.
        decimal = _matches(self.header, _DECIMAL)
        return [[_in_range(self.header, bounds[run.start], bounds[run.end]), decimal] for run in owned]


def of_key(cell_map: PartitionMap) -> PartitionMatch | None:
    """For proxies that find the key in its header; None where it takes more than to look at it.

    With shuffle shards it does: Envoy takes subsets of endpoints from metadata only.
    """
    if cell_map.shards:
        return None
    if cell_map.rule.kind == "ranges":
        return Ranges(cell_map.key.header, cell_map.rule.bounds)
    places = _places(cell_map.rule, len(cell_map.owners))
    return None if places is None else Digits(cell_map.key.header, places)


def _places(rule: PartitionRule, partitions: int) -> tuple[int, ...] | None:
    """The digits that make the partition, if that is all there is to it: also modulo a power of ten."""
    if rule.kind == "digits":
        return rule.digits if len(set(rule.digits)) == len(rule.digits) else None
    width = len(str(partitions)) - 1
    return tuple(range(width, 0, -1)) if rule.kind == "modulo" and partitions == 10**width else None


Tails = frozenset[tuple[int, ...]]
"""Digits of ids at the places that count, from the place farthest from the end on."""


@lru_cache(maxsize=1024)  # every cell tells its proxies of all others
def _pattern(places: tuple[int, ...], owned: tuple[Owned, ...]) -> str:
    """Of the decimal ids whose digits at these places make one of these partitions. A place before the first digit has
    a 0, so that shorter ids have patterns of their own."""
    most = max(places)
    partitions = chain.from_iterable(range(run.start, run.end) for run in owned)
    order = sorted(range(len(places)), key=lambda at: -places[at])
    written = (f"{partition:0{len(places)}}" for partition in partitions)
    tails = frozenset(tuple(int(digits[at]) for at in order) for digits in written)
    patterns = [f"[0-9]{{0,{MAX_DIGITS - most}}}{_tail(most, places, tails)}"]
    for place in range(most - 1, 0, -1):
        if place + 1 in places:
            tails = frozenset(tail[1:] for tail in tails if tail[0] == 0)
        if not tails:
            break
        patterns.append(_tail(place, places, tails))
    return "|".join(patterns)


def _tail(place: int, places: tuple[int, ...], tails: Tails) -> str:
    """Of the last digits of ids, so many. What may be followed by the same is one class: so it stays short."""
    if place == 0:
        return ""
    if place not in places:
        return "[0-9]" + _tail(place - 1, places, tails)
    digits_before: dict[Tails, str] = {}
    for digit in range(10):
        if rests := frozenset(tail[1:] for tail in tails if tail[0] == digit):
            digits_before[rests] = digits_before.get(rests, "") + str(digit)
    ways = [f"{_class(digits)}{_tail(place - 1, places, rests)}" for rests, digits in digits_before.items()]
    return ways[0] if len(ways) == 1 else f"(?:{'|'.join(ways)})"


def _class(digits: str) -> str:
    if len(digits) == 1:
        return digits
    return f"[{digits[0]}-{digits[-1]}]" if int(digits[-1]) - int(digits[0]) == len(digits) - 1 else f"[{digits}]"


def _in_range(name: str, start: int, end: int) -> dict[str, Any]:
    return {"name": name, "range_match": {"start": start, "end": end}}


def _matches(name: str, pattern: str) -> dict[str, Any]:
    return {"name": name, "string_match": {"safe_regex": {"regex": pattern}}}
