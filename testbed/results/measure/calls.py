"""Where calls went, zone by zone, and whether every request left a trace of its calls.

Counted per hop, never per request: a request of ten calls is ten choices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from testbed.objects.workloads import GATEWAY, ROUTER
from testbed.results.measure.phases import Phase
from testbed.results.tables.columns import Codes, Mask, codes, floats, named, same

UNWRITTEN_S = 0.5
"""Of what Envoy has logged, that much may not be in the file yet: it writes every 0.2 s, and later if it waits for a
core."""

CallMatrix = dict[str, dict[str, int]]
"""Source zone -> destination zone -> calls."""


@dataclass(frozen=True, slots=True)
class CallShares:
    """Where outbound calls (gateways' too) of one phase went; shares are None without calls.

    Only hops that reached a known pod count; `same_cell_share` is of those whose both ends are in a cell.
    """

    hops: int
    same_zone_share: float | None
    same_cell_share: float | None
    same_zone_share_by_service: dict[str, float]
    same_cell_share_by_service: dict[str, float]
    matrix: CallMatrix


@dataclass(frozen=True, slots=True)
class Completeness:
    """Ok requests that no proxy logged. `explained` of them went with a gateway that was killed or a lost machine."""

    without_hops: int
    explained: int

    @property
    def lost(self) -> int:
        return self.without_hops - self.explained


def calls_made(hops: pa.Table) -> pa.Table:
    """Every call once, if it reached a known pod. One from pod to pod is seen twice, and counts where it was made.

    Without its request's id, the largest column."""
    known = pc.and_(pc.is_valid(hops["source_zone"]), pc.is_valid(hops["destination_zone"]))
    return hops.drop_columns("request_id").filter(
        pc.and_(pc.fill_null(pc.equal(hops["direction"], "outbound"), False), known)
    )


class Calls:
    """The calls of a run (`calls_made`), ready to be counted by phase."""

    def __init__(self, calls: pa.Table) -> None:
        self._source_zone, self._source_zones = codes(calls["source_zone"])
        self._zone, self._zones = codes(calls["destination_zone"])
        self._service, self._services = codes(calls["destination_service"])
        self._start_s = floats(calls["start_s"])
        self._same_zone = same((self._source_zone, self._source_zones), (self._zone, self._zones))
        cells = (codes(calls["source_cell"]), codes(calls["destination_cell"]))
        self._same_cell = same(*cells)
        self._in_cells = named(*cells[0]) & named(*cells[1])

    def within(self, phase: Phase) -> CallShares:
        """Where the calls went that began in this phase."""
        inside = (self._start_s >= phase.start_s) & (self._start_s < phase.end_s)
        zones, celled = int(inside.sum()), inside & self._in_cells
        matrix = np.bincount(
            self._source_zone[inside] * len(self._zones) + self._zone[inside],
            minlength=len(self._source_zones) * len(self._zones),
        ).reshape(len(self._source_zones), len(self._zones))
        return CallShares(
            zones,
            int((inside & self._same_zone).sum()) / zones if zones else None,
            int((celled & self._same_cell).sum()) / int(celled.sum()) if celled.any() else None,
            self._by_service(inside, self._same_zone),
            self._by_service(celled, self._same_cell),
            {
                source: {self._zones[b]: int(row[b]) for b in sorted(np.flatnonzero(row), key=self._zones.__getitem__)}
                for source, row in sorted(zip(self._source_zones, matrix, strict=True), key=lambda pair: pair[0])
                if row.any()
            },
        )

    def _by_service(self, inside: Mask, same: Mask) -> dict[str, float]:
        inside = inside & (self._service >= 0)
        size = len(self._services)
        total = np.bincount(self._service[inside], minlength=size)
        stayed = np.bincount(self._service[inside & same], minlength=size)
        shares = ((name, int(stayed[i]) / int(total[i])) for i, name in enumerate(self._services) if total[i])
        return dict(sorted(shares))


def completeness(
    requests: pa.Table,
    hops: pa.Table,
    pods: pa.Table,
    killed: Sequence[tuple[str, float]],
    lost: Sequence[tuple[float, float]] = (),
) -> Completeness:
    """Ok requests without any hop; `killed` are the proxies that were killed, with the time of each kill, `lost` the
    machines that were lost: from when on their records did not come home, and since when they were silent.

    Every request is logged by the gateway that served it, once it is answered. Killed, it loses what it had not logged
    and what was not written. So the kill of a gateway in the request's entry zone explains a request that was sent
    before it, and finished at any time after or within UNWRITTEN_S before: an answer that was on its way when the node
    crashed comes when the links are healed.
    """
    ok = pc.equal(requests["outcome"], "ok")
    # A router's line says only that a client asked it.
    served = hops["request_id"].filter(pc.fill_null(pc.not_equal(hops["destination_service"], ROUTER), True))
    seen = pc.is_in(requests["request_id"], value_set=pc.unique(served))
    missing = requests.filter(pc.and_not(ok, seen))
    sent_s, finished_s = floats(missing["sent_s"]), floats(missing["finished_s"])
    entry, zones = codes(missing["entry_zone"])
    identities = {row["pod"]: row for row in pods.select(["pod", "service", "zone"]).to_pylist()}
    explained = np.zeros(len(missing), dtype=np.bool_)
    for pod, killed_s in killed:
        served = _entered(entry, zones, identities.get(pod))
        explained |= served & (sent_s <= killed_s) & (finished_s >= killed_s - UNWRITTEN_S)
    for from_s, to_s in lost:
        explained |= (sent_s <= to_s) & (finished_s >= from_s - UNWRITTEN_S)
    return Completeness(len(missing), int(explained.sum()))


def _entered(entry: Codes, zones: Sequence[str], proxy: Mapping[str, str] | None) -> Mask:
    """Which requests can have entered by this proxy: all, where it is in no table; those that do not say where, too."""
    served: Mask = entry < 0
    if proxy is None:
        served = np.ones(len(entry), dtype=np.bool_)
    elif proxy["service"] == GATEWAY and proxy["zone"] in zones:
        served |= entry == zones.index(proxy["zone"])
    return served
