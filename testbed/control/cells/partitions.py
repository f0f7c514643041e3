"""From the id that a request carries to its partition.

The same in Lua, for proxies, is `control.views.envoy.partition_filter`; both are tried with the same ids.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import Final

from testbed.objects.cells import PartitionRule

MAX_DIGITS: Final = 15
"""Of a decimal id: what a double, Lua's only number, holds exactly."""

_DECIMAL: Final = re.compile(f"[0-9]{{1,{MAX_DIGITS}}}")


def partition_of(rule: PartitionRule, partitions: int, key: str) -> int | None:
    """0 to `partitions` - 1; None where this is no key: empty, not a decimal, or below the first range."""
    if rule.kind == "hash":
        return fnv1a(key) % partitions if key else None
    if not _DECIMAL.fullmatch(key):
        return None
    match rule.kind:
        case "digits":
            return int("".join(key[-at] if at <= len(key) else "0" for at in rule.digits))
        case "modulo":
            return int(key) % partitions
        case "ranges":
            found = bisect_right(rule.bounds, int(key)) - 1
            return None if found < 0 else found


def fnv1a(key: str) -> int:
    """FNV-1a, 32 bit (draft-eastlake-fnv)."""
    value = 0x811C9DC5
    for byte in key.encode():
        value = (value ^ byte) * 0x01000193 % 2**32
    return value
