"""What the pictures show, counted from tables. Nothing here is drawn, and nothing loops over rows.

Definitions of phases, recovery and the control path are `measure`'s; they come with the Summary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from testbed.results.measure.phases import Phase
from testbed.results.tables.columns import Codes, Floats, Mask, Requests, codes, floats
from testbed.results.tables.run import Run

BINS = 240
BIN_WIDTHS_S = (0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
_QUANTILE_POINTS = 160
_SERVED_BELOW = 500
_ZONES = ("source_zone", "destination_zone")


@dataclass(frozen=True, slots=True)
class Bin:
    """Requests by intended time, `width_s` of the `Course` from `start_s` on; latencies are of ok ones."""

    start_s: float
    sent: int
    ok: int
    failed: int
    unknown: int
    p50_ms: float | None
    p99_ms: float | None


@dataclass(frozen=True, slots=True)
class Course:
    width_s: float
    bins: tuple[Bin, ...]


@dataclass(frozen=True, slots=True)
class Flow:
    """Calls, or requests, from one zone to another. `failed` were not answered, or with 500 and more; of requests it is
    those that were not ok. `failed_tries` ended no call where a retry saved it."""

    source: str
    destination: str
    calls: int
    failed: int
    failed_tries: int = 0

    @property
    def failed_share(self) -> float:
        return self.failed / self.calls if self.calls else 0.0


@dataclass(frozen=True, slots=True)
class Traffic:
    """Of one phase: outbound calls by zones, requests from clients' zone to the zone where they entered, and the
    outbound calls that each node was the destination of."""

    phase: Phase
    calls: tuple[Flow, ...]
    entries: tuple[Flow, ...]
    calls_by_node: dict[str, int]


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Latency of ok requests of a phase: (share of requests that were at least as fast, ms), in order."""

    phase: str
    requests: int
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Delivery:
    """A row of `pushes`; `took_ms` is None where it was never acknowledged."""

    proxy: str
    type: str
    version: str
    sent_s: float
    took_ms: float | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Deliveries:
    pushes: int
    acked: int
    p50_ms: float | None
    p99_ms: float | None
    slowest: tuple[Delivery, ...]
    unacked: tuple[Delivery, ...]
    """The first of them."""
    before_load: bool


@dataclass(frozen=True, slots=True)
class LinkFigures:
    """A directed link: medians over its seconds, p99 the worst of them. None where nobody recorded it."""

    source: str
    destination: str
    declared_ms: float | None
    expected_ms: float | None
    achieved_ms: float | None
    p99_ms: float | None
    bytes: int
    dropped: int

    @property
    def off_ms(self) -> float:
        known = self.achieved_ms is not None and self.expected_ms is not None
        return abs(self.achieved_ms - self.expected_ms) if known else 0.0  # type: ignore[operator]


@dataclass(frozen=True, slots=True)
class Machine:
    """CPU in percent of all cores, by time."""

    name: str
    cpu: tuple[tuple[float, float | None], ...]
    worst_cpu_percent: float
    lateness_p99_ms: float


@dataclass(frozen=True, slots=True)
class Happening:
    """A row of `events`."""

    t_s: float
    source: str
    kind: str
    object: str
    reason: str
    details: str


def course(requests: Requests, end_s: float) -> Course:
    last_s = max(end_s, float(requests.intended_s.max()) if len(requests) else 0.0)
    width_s = next((width for width in BIN_WIDTHS_S if last_s <= width * BINS), last_s / BINS)
    number = int(last_s / width_s - 1e-9) + 1 if last_s > 0 else 0
    found = np.clip((requests.intended_s / width_s).astype(np.int64), 0, max(0, number - 1))

    def counted(mask: Mask) -> list[int]:
        return [int(value) for value in np.bincount(found[mask], minlength=number)]

    sent, ok, failed = counted(np.ones(len(found), np.bool_)), counted(requests.ok), counted(requests.failed)
    order = np.lexsort((requests.latency_ms[requests.ok], found[requests.ok]))
    latency_ms, ends = requests.latency_ms[requests.ok][order], np.cumsum(ok, dtype=np.int64)
    bins = []
    for index in range(number):
        some = latency_ms[ends[index] - ok[index] : ends[index]]
        p50_ms, p99_ms = (float(ms) for ms in np.quantile(some, (0.5, 0.99))) if len(some) else (None, None)
        unknown = sent[index] - ok[index] - failed[index]
        bins.append(Bin(index * width_s, sent[index], ok[index], failed[index], unknown, p50_ms, p99_ms))
    return Course(width_s, tuple(bins))


def cell_calls(run: Run, phases: Sequence[Phase]) -> tuple[tuple[Flow, ...], ...]:
    """Of each phase the outbound calls between cells; none where there are no cells."""
    calls = _Pairs.of_calls(run.hops, ("source_cell", "destination_cell"))
    return tuple(tuple(flow for flow in calls.within(phase) if flow.source and flow.destination) for phase in phases)


def traffic(run: Run, requests: Requests, phases: Sequence[Phase]) -> tuple[Traffic, ...]:
    calls, entries = _Pairs.of_calls(run.hops), _Pairs.of_requests(run.requests, requests)
    tries = _Pairs.of_attempts(run.attempts)
    outbound = pc.fill_null(pc.equal(run.hops["direction"], "outbound"), False).to_numpy()
    node, nodes = codes(run.hops["destination_node"])
    at_node, start_s = outbound & (node >= 0), floats(run.hops["start_s"])
    found = []
    for phase in phases:
        tried = {(flow.source, flow.destination): flow.calls for flow in tries.within(phase)}
        hit = np.bincount(node[at_node & (start_s >= phase.start_s) & (start_s < phase.end_s)], minlength=len(nodes))
        flows = tuple(
            replace(flow, failed_tries=tried.get((flow.source, flow.destination), 0)) for flow in calls.within(phase)
        )
        by_node = {name: int(number) for name, number in zip(nodes, hit, strict=True) if number}
        found.append(Traffic(phase, flows, tuple(entries.within(phase)), by_node))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Pairs:
    """What went from one zone to another, and when."""

    at_s: Floats
    pair: Codes
    failed: Mask
    sources: list[str]
    destinations: list[str]

    @classmethod
    def of(cls, table: pa.Table, columns: tuple[str, str], at_s: Floats, failed: Mask, chosen: Mask | None) -> _Pairs:
        source, sources = codes(table[columns[0]])
        destination, destinations = codes(table[columns[1]])
        known: Mask = (source >= 0) & (destination >= 0)
        if chosen is not None:
            known &= chosen
        pair = (source * len(destinations) + destination)[known]
        return cls(at_s[known], pair, failed[known], sources, destinations)

    @classmethod
    def of_calls(cls, hops: pa.Table, ends: tuple[str, str] = _ZONES) -> _Pairs:
        """Outbound ones whose destination was a pod."""
        outbound = pc.fill_null(pc.equal(hops["direction"], "outbound"), False).to_numpy()
        failed = pc.fill_null(pc.greater_equal(hops["status"], _SERVED_BELOW), True).to_numpy()
        return cls.of(hops, ends, floats(hops["start_s"]), failed, outbound)

    @classmethod
    def of_requests(cls, table: pa.Table, requests: Requests) -> _Pairs:
        return cls.of(table, ("origin_zone", "entry_zone"), requests.counted_s, ~requests.ok, None)

    @classmethod
    def of_attempts(cls, attempts: pa.Table) -> _Pairs:
        every = np.ones(len(attempts), np.bool_)
        return cls.of(attempts, _ZONES, floats(attempts["start_s"]), every, None)

    def within(self, phase: Phase) -> list[Flow]:
        """The largest first."""
        inside = (self.at_s >= phase.start_s) & (self.at_s < phase.end_s)
        size = len(self.sources) * len(self.destinations)
        every = np.bincount(self.pair[inside], minlength=size)
        failed = np.bincount(self.pair[inside & self.failed], minlength=size)
        flows = [
            Flow(
                self.sources[index // len(self.destinations)],
                self.destinations[index % len(self.destinations)],
                int(every[index]),
                int(failed[index]),
            )
            for index in np.flatnonzero(every).tolist()
        ]
        return sorted(flows, key=lambda flow: (-flow.calls, flow.source, flow.destination))


def percentiles(requests: Requests, phases: Sequence[Phase]) -> tuple[Percentiles, ...]:
    """Dense towards the slowest, up to the slowest but none: beyond, quantiles would be made up."""
    found = []
    for phase in phases:
        inside = requests.ok & (requests.counted_s >= phase.start_s) & (requests.counted_s < phase.end_s)
        latency_ms = np.sort(requests.latency_ms[inside])
        if not len(latency_ms):
            continue
        tail = np.log10(max(len(latency_ms), 2))
        shares = 1 - np.power(10.0, -np.linspace(0, tail, _QUANTILE_POINTS))
        points = zip(shares.tolist(), np.quantile(latency_ms, shares).tolist(), strict=True)
        found.append(Percentiles(phase.name, len(latency_ms), tuple(points)))
    return tuple(found)


def deliveries(pushes: pa.Table, number: int) -> Deliveries:
    """Of those since the load began; of all, where there were none."""
    loaded = pushes.filter(pc.greater_equal(pushes["sent_s"], 0.0))
    pushes = loaded if len(loaded) else pushes
    sent_s, acked_s = floats(pushes["sent_s"]), floats(pushes["acked_s"])
    took_ms = (acked_s - sent_s) * 1e3
    acked = ~np.isnan(took_ms)
    p50_ms, p99_ms = np.quantile(took_ms[acked], (0.5, 0.99)).tolist() if acked.any() else (None, None)
    slowest = np.argsort(np.where(acked, -took_ms, np.inf), kind="stable")[: min(number, int(acked.sum()))]
    without = np.flatnonzero(~acked)
    without = without[np.argsort(sent_s[without], kind="stable")][:number]
    return Deliveries(
        len(pushes),
        int(acked.sum()),
        p50_ms,
        p99_ms,
        _delivered(pushes, slowest),
        _delivered(pushes, without),
        before_load=not len(loaded),
    )


def _delivered(pushes: pa.Table, rows: npt.NDArray[np.int64]) -> tuple[Delivery, ...]:
    return tuple(
        Delivery(
            row["proxy"] or "",
            (row["type"] or "").rpartition(".")[2],
            row["version"] or "",
            row["sent_s"],
            None if row["acked_s"] is None else (row["acked_s"] - row["sent_s"]) * 1e3,
            row["error"],
        )
        for row in pushes.take(pa.array(rows)).to_pylist()
    )


def links(table: pa.Table) -> tuple[LinkFigures, ...]:
    """The furthest off first."""
    source, sources = codes(table["source"])
    destination, destinations = codes(table["destination"])
    pair = source * max(1, len(destinations)) + destination
    order = np.argsort(pair, kind="stable")
    found, starts = np.unique(pair[order], return_index=True)
    columns = {
        name: floats(table[name])[order]
        for name in ("declared_ms", "expected_p50_ms", "achieved_p50_ms", "achieved_p99_ms", "bytes", "dropped")
    }
    edges = [*starts.tolist(), len(order)]
    figures = []
    for key, (start, end) in zip(found.tolist(), pairwise(edges), strict=True):
        part = {name: values[start:end] for name, values in columns.items()}
        figures.append(
            LinkFigures(
                sources[key // len(destinations)],
                destinations[key % len(destinations)],
                _of(np.median, part["declared_ms"]),
                _of(np.median, part["expected_p50_ms"]),
                _of(np.median, part["achieved_p50_ms"]),
                _of(np.max, part["achieved_p99_ms"]),
                int(np.nansum(part["bytes"])),
                int(np.nansum(part["dropped"])),
            )
        )
    return tuple(sorted(figures, key=lambda link: (-link.off_ms, link.source, link.destination)))


def _of(how: Callable[[Floats], float], values: Floats) -> float | None:
    known = values[~np.isnan(values)]
    return float(how(known)) if len(known) else None


def machines(table: pa.Table, end_s: float) -> tuple[Machine, ...]:
    """The mean of neighbouring samples, where there are many."""
    machine, names = codes(table["machine"])
    t_s, cpu, lateness_ms = floats(table["t_s"]), floats(table["cpu_percent"]), floats(table["lateness_ms"])
    loaded = (t_s >= 0) & (t_s <= end_s) & ~np.isnan(cpu)
    width_s = max(end_s / BINS, 0.5)
    found = []
    for code, name in sorted(enumerate(names), key=lambda item: item[1]):
        own = loaded & (machine == code)
        if not own.any():
            continue
        index = (t_s[own] / width_s).astype(np.int64)
        total, number = np.bincount(index, weights=cpu[own]), np.bincount(index)
        points = [(at * width_s, float(total[at] / number[at])) for at in np.flatnonzero(number).tolist()]
        late_ms = lateness_ms[own & ~np.isnan(lateness_ms)]
        p99_ms = float(np.quantile(late_ms, 0.99)) if len(late_ms) else 0.0
        found.append(Machine(name, tuple(points), float(cpu[own].max()), p99_ms))
    return tuple(found)


def send_lag_ms(requests: Requests) -> float | None:
    """p99 from intended to actual send."""
    lag_s = (requests.sent_s - requests.intended_s)[~np.isnan(requests.sent_s)]
    return float(np.quantile(lag_s, 0.99)) * 1e3 if len(lag_s) else None


def happenings(events: pa.Table, number: int) -> tuple[Happening, ...]:
    """In order of time; where there are more than `number`, first of all those since the load began."""
    t_s = floats(events["t_s"])
    order = np.argsort(t_s, kind="stable")
    before = int((t_s < 0).sum())
    chosen = order[before : before + number]
    chosen = np.concatenate((order[max(0, before - (number - len(chosen))) : before], chosen))
    names = ("t_s", "source", "kind", "object", "reason", "details")
    return tuple(
        Happening(row["t_s"], *(row[name] or "" for name in names[1:]))
        for row in events.select(names).take(pa.array(chosen)).to_pylist()
    )


def moments_by_reason(events: pa.Table, number: int, end_s: float) -> dict[str, tuple[int, list[float]]]:
    """Of the most frequent reasons since the load began: how often, and when, at most `BINS` times each."""
    t_s, (reason, reasons) = floats(events["t_s"]), codes(events["reason"])
    loaded = (t_s >= 0) & (reason >= 0)
    often = np.bincount(reason[loaded], minlength=len(reasons))
    width_s = max(end_s, 1e-3) / BINS
    found = {}
    for code in sorted(np.flatnonzero(often).tolist(), key=lambda code: (-often[code], reasons[code]))[:number]:
        own_s = t_s[loaded & (reason == code)]
        _, first = np.unique((own_s / width_s).astype(np.int64), return_index=True)
        found[reasons[code]] = (int(often[code]), own_s[first].tolist())
    return found
