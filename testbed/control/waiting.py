"""What is not as declared yet, and why: for whoever waits for a cluster to come up."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

NAMES_SHOWN = 3
_NUMBERS = re.compile(r"\d+(?:[.:]\d+)*")


@dataclass(frozen=True, slots=True)
class Waiting:
    """One object that is not ready. In `reason`, `{node}` stands for `node`."""

    kind: str
    name: str
    reason: str
    node: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}: {self.reason.replace('{node}', self.node)}"


def grouped(waiting: Iterable[Waiting]) -> list[str]:
    """A line for each reason, with how many it concerns and the first of them; the most frequent first.

    Reasons that differ in nodes, addresses or versions only are one; the first one's is shown.
    """
    groups: dict[tuple[str, str], list[Waiting]] = {}
    for each in waiting:
        groups.setdefault((each.kind, _NUMBERS.sub("0", each.reason)), []).append(each)
    return [_line(group) for group in sorted(groups.values(), key=len, reverse=True)]


def _line(group: list[Waiting]) -> str:
    first = group[0]
    if len(group) == 1:
        return str(first)
    names = ", ".join(each.name for each in group[:NAMES_SHOWN])
    more = f" and {len(group) - NAMES_SHOWN} more" if len(group) > NAMES_SHOWN else ""
    reason = first.reason.replace("node {node}", "its node").replace("{node}", "its node")
    return f"{len(group)} {first.kind}s ({names}{more}): {reason}"
