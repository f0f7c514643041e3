"""By which right each call went to the cell that it went to, and which had none.

Owns the classes; `route` is the word of the proxy that chose (`control.views.envoy.cells`). It is not simply believed:
in which cell each end really is, is known from the pods, and who reached another than it was routed for has leaked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal, get_args

import numpy as np
import pyarrow as pa

from testbed.control.views.envoy import access_log
from testbed.objects.workloads import GATEWAY
from testbed.results.tables.columns import Codes, Mask, codes, floats, named, same

Right = Literal[
    "entry",
    "own",
    "by_class",
    "declared",
    "cross_cell",
    "first_hit",
    "stale_cookie",
    "stale_map",
    "unkeyed",
    "failover",
    "leak",
]
"""Of a gateway's call, `entry`. Of one between pods: `own`: to the cell that owns the partition, from there or from
outside of all cells; `by_class`: to a service that is global or of a city; `declared` and `cross_cell`: to the owner,
from a cell that is not, by a rule of the scenario, or where it has no rules about that; `first_hit`, `stale_cookie`,
`stale_map`: forwarded to the owner by a cell that is not, and why it had the call; `unkeyed`: as the map says of what
has no key. Of either: `failover`: to the backup of the cell that it was for, or to the
cell that has the partition as long as its own one is given up; and `leak`: all else."""
RIGHTS: Final[tuple[Right, ...]] = get_args(Right)
FORWARDS: Final[tuple[Right, ...]] = ("first_hit", "stale_cookie", "stale_map")

_BY_ROUTE: Final[Mapping[Right, tuple[str, ...]]] = {
    "first_hit": (access_log.FIRST_HIT,),
    "stale_cookie": (access_log.STALE_COOKIE,),
    "stale_map": (access_log.STALE_MAP,),
    "unkeyed": (access_log.UNKEYED,),
    "cross_cell": (access_log.CROSS_CELL,),
    "by_class": (access_log.GLOBAL, access_log.PER_CITY),
}


CrossCellRules = Mapping[str, tuple[str, str]]
"""By the name of the rule: the service that may call another cell, and which service there."""


def rights(
    calls: pa.Table,
    backups: Mapping[str, str],
    cross_cell: CrossCellRules | None = None,
    lent: Mapping[int, Sequence[int]] = {},
) -> Codes:
    """The right of each call, as its number in RIGHTS; -1 for all where there are no cells, and so no map.

    `backups` are those of cells that have one. With `cross_cell` all calls from cell to cell that it does not allow
    are leaks. `lent` are, by version of the map, the partitions that another cell has only because their own one was
    given up.
    """
    if calls["map_version"].null_count == len(calls):
        return np.full(len(calls), -1, dtype=np.int64)
    route, routes = codes(calls["route"])
    service, services = codes(calls["source_service"])
    here, there, owner = (codes(calls[column]) for column in ("source_cell", "destination_cell", "owner_cell"))
    elsewhere = named(*owner) & ~same(owner, there)
    backup = (owner[0], [backups.get(cell, "") for cell in owner[1]])
    within = named(*here) & same(here, there)
    from_outside = ~named(*here) & same(owner, there)

    def routed(right: Right) -> Mask:
        wanted: Mask = np.isin(route, [routes.index(name) for name in _BY_ROUTE[right] if name in routes])
        return wanted

    conditions: dict[Right, Mask] = {
        "failover": (elsewhere & named(*there) & same(backup, there)) | (within & _lent(calls, lent)),
        "leak": elsewhere,
        "entry": service == (services.index(GATEWAY) if GATEWAY in services else -2),
        "declared": routed("cross_cell") & (rule_of(calls, cross_cell or {})[0] >= 0),
        **{right: routed(right) for right in _BY_ROUTE if right != "cross_cell" or cross_cell is None},
        "own": within | from_outside,
    }
    numbers = [RIGHTS.index(right) for right in conditions]
    chosen: Codes = np.select(list(conditions.values()), numbers, default=RIGHTS.index("leak")).astype(np.int64)
    return chosen


def rule_of(calls: pa.Table, cross_cell: CrossCellRules) -> tuple[Codes, list[str]]:
    """The rule for calls between these two services, as its number in the names that come with it; -1 without one."""
    ends = [codes(calls[f"{end}_service"]) for end in ("source", "destination")]
    found = np.full(len(calls), -1, dtype=np.int64)
    for number, rule in enumerate(cross_cell.values()):
        at = [names.index(service) if service in names else -2 for (_, names), service in zip(ends, rule, strict=True)]
        found[(ends[0][0] == at[0]) & (ends[1][0] == at[1]) & (found < 0)] = number
    return found, list(cross_cell)


def _lent(calls: pa.Table, lent: Mapping[int, Sequence[int]]) -> Mask:
    found: Mask = np.zeros(len(calls), dtype=np.bool_)
    if not any(lent.values()):
        return found
    version, (partition, names) = floats(calls["map_version"]), codes(calls["partition"])
    for number, partitions in lent.items():
        wanted = {str(each) for each in partitions}
        found |= (version == number) & np.isin(partition, [code for code, name in enumerate(names) if name in wanted])
    return found
