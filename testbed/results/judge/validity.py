"""Why a run must not be believed: what the testbed itself did wrong, as opposed to what it was told to break.

An invalid run says nothing about the system under test, neither good nor bad.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from testbed.objects.places import clients_of
from testbed.results.judge.lateness import Late
from testbed.results.judge.undeclared import Undeclared
from testbed.results.measure.calls import Completeness
from testbed.results.tables.columns import Floats, Requests, codes, floats
from testbed.results.tables.facts import RunFacts, UnreadLines

_LOGS_NAMED = 3


@dataclass(frozen=True, slots=True)
class Limits:
    steady_lag_ms: float = 5.0
    """p99 from intended to actual send. More, and quantiles of a few milliseconds measure the load generator."""
    lag_ms: float = 50.0
    """The same outside the steady phase, where recovery of some 100 ms is what has to be seen."""
    rate_share: float = 0.95
    """Achieved of the declared rate. Less, and the load is not the one that was asked for."""
    rate_sigmas: float = 3.0
    """Poisson arrivals spread: a shortfall within this many standard deviations is chance."""
    cpu_percent: float = 95.0
    cpu_share: float = 0.10
    """Share of samples above `cpu_percent`. More, and waiting for a CPU looks like a slow service."""
    unsampled_s: float = 2.0
    """Samples come twice a second: so much load must have some."""
    link_ms: float = 0.5
    link_share: float = 0.10
    """Median latency of a link may be off by the larger of `link_ms` and this share of its declared delay.

    Off from what the declaration makes its bytes take: waiting for bandwidth is no fault of the testbed's.
    """
    clock_step_s: float = 0.005
    """Change between the epoch and the monotonic clock; proxies log the one, clients the other."""
    clock_error_s: float = 0.005
    """Error of a machine's clock against the others'. More, and events of two machines cannot be put in order."""
    fault_late_s: float = 0.05
    """Recovery counts from when a fault came, but a late one met another system than the scenario describes."""


def invalid_reasons(
    facts: RunFacts,
    table: pa.Table,
    requests: Requests,
    links: pa.Table,
    machines: pa.Table,
    completeness: Completeness,
    unexplained: Sequence[Undeclared] = (),
    unread: Sequence[UnreadLines] = (),
    late: Sequence[Late] = (),
    limits: Limits = Limits(),
) -> tuple[str, ...]:
    """One line with figures for each reason not to believe the run; none if it is valid. `table` is `requests`'."""
    return (
        *_machines(facts),
        *_unhit(facts),
        *_deaths(unexplained),
        *_lag(facts, requests, limits),
        *_rate(facts, table, requests, limits),
        *_cpu(facts, machines, limits),
        *_late(late),
        *_links(links, limits),
        *_lost_records(facts, table, requests, completeness),
        *_unread(unread),
        *_clocks(facts, limits),
    )


def _lag(facts: RunFacts, requests: Requests, limits: Limits) -> Iterator[str]:
    lag_ms = (requests.sent_s - requests.intended_s) * 1e3
    steady_end_s = min([facts.end_s, *(fault.applied_s for fault in facts.faults)])
    steady = (requests.intended_s >= facts.warmup_s) & (requests.intended_s < steady_end_s)
    for where, inside, limit_ms in (
        ("in the steady phase", steady, limits.steady_lag_ms),
        ("outside the steady phase", ~steady, limits.lag_ms),
    ):
        p99_ms = float(np.quantile(lag_ms[inside], 0.99)) if inside.any() else 0.0
        if p99_ms > limit_ms:
            yield f"load generator lag: p99 {p99_ms:.1f} ms {where}, at most {limit_ms:g} ms"


def _rate(facts: RunFacts, table: pa.Table, requests: Requests, limits: Limits) -> Iterator[str]:
    zone_codes, zones = codes(table["origin_zone"])
    spells = facts.sending or ((0.0, facts.end_s),)
    for zone in sorted({source.zone for source in facts.sources}):
        until_s = facts.records_until_s(clients_of(zone))
        last_s = facts.end_s if until_s is None else min(until_s, facts.end_s)
        bounded = [(max(from_s, facts.warmup_s), min(to_s, last_s)) for from_s, to_s in spells]
        seconds = sum(max(0.0, to_s - from_s) for from_s, to_s in bounded)
        intended_s = requests.intended_s
        measured = np.zeros(len(intended_s), bool)
        for from_s, to_s in bounded:
            measured |= (intended_s >= from_s) & (intended_s < to_s)
        sources = [source for source in facts.sources if source.zone == zone]
        rates_per_s = [source.rate_per_s for source in sources if source.rate_per_s is not None]
        if len(rates_per_s) < len(sources) or seconds <= 0:
            continue  # a closed load has no rate to keep
        expected = sum(rates_per_s) * seconds
        chance = limits.rate_sigmas * expected**0.5 if any(source.arrival == "poisson" for source in sources) else 0.0
        sent = int((measured & (zone_codes == zones.index(zone))).sum()) if zone in zones else 0
        if sent < expected - max((1 - limits.rate_share) * expected, chance):
            share = f"{sent / expected:.1%}, at least {limits.rate_share:.0%}"
            yield f"achieved rate of {zone}: {sent / seconds:.1f}/s of {sum(rates_per_s):g}/s declared ({share})"


def _cpu(facts: RunFacts, machines: pa.Table, limits: Limits) -> Iterator[str]:
    t_s, percent = floats(machines["t_s"]), floats(machines["cpu_percent"])
    machine_codes, names = codes(machines["machine"])
    loaded = (t_s >= facts.warmup_s) & (t_s < facts.end_s) & ~np.isnan(percent)
    if facts.end_s - facts.warmup_s > limits.unsampled_s:
        seen = {name for code, name in enumerate(names) if (loaded & (machine_codes == code)).any()}
        for machine in facts.machines:
            if machine.lost_s is None and machine.name not in seen:
                yield f"CPU of machine {machine.name} was not sampled"
    for code, name in sorted(enumerate(names), key=lambda item: item[1]):
        samples = percent[loaded & (machine_codes == code)]
        share = float((samples > limits.cpu_percent).mean()) if len(samples) else 0.0
        if share > limits.cpu_share:
            bound = f"{limits.cpu_percent:g} % in {share:.0%} of samples, at most {limits.cpu_share:.0%}"
            yield f"CPU of machine {name} above {bound}"


def _late(late: Sequence[Late]) -> Iterator[str]:
    """`late` has only what can have changed something, the longest first."""
    if late:
        longest, others = late[0], len(late) - 1
        more = f"; {others} more times, by {len({each.process for each in late})} processes" if others else ""
        patience = f"others wait {longest.patience_s:.3g} s for it"
        yield f"{longest.process} was held up for {longest.late_s:.2f} s at {longest.t_s:.2f} s, {patience}{more}"


def _links(links: pa.Table, limits: Limits) -> Iterator[str]:
    """By the median over the seconds of a link: what faults declared in each second is part of the comparison."""
    declared_ms, expected_ms = floats(links["declared_ms"]), floats(links["expected_p50_ms"])
    achieved_ms = floats(links["achieved_p50_ms"])
    off_ms = np.abs(achieved_ms - expected_ms)
    excess_ms = off_ms - np.maximum(limits.link_ms, limits.link_share * declared_ms)
    sources, source_names = codes(links["source"])
    destinations, destination_names = codes(links["destination"])
    pair = sources * len(destination_names) + destinations
    wrong: list[tuple[float, str]] = []
    for key in np.unique(pair[~np.isnan(off_ms)]).tolist():
        rows = (pair == key) & ~np.isnan(off_ms)
        if float(np.median(excess_ms[rows])) > 0:
            link = f"{source_names[key // len(destination_names)]} -> {destination_names[key % len(destination_names)]}"
            figures = f"{_median(achieved_ms[rows]):.2f} ms instead of {_median(expected_ms[rows]):.2f} ms"
            wrong.append((_median(off_ms[rows]), f"{link} has {figures}"))
    if wrong:
        worst = max(wrong)[1]
        yield f"latency of {len(wrong)} links is off, worst: {worst} (median)"


def _lost_records(facts: RunFacts, table: pa.Table, requests: Requests, completeness: Completeness) -> Iterator[str]:
    zone_codes, zones = codes(table["origin_zone"])
    declared = {source.zone for source in facts.sources}
    for zone in sorted(declared | set(zones) | set(facts.locust)):
        rows = zone_codes == (zones.index(zone) if zone in zones else -2)
        sent, not_ok = int(rows.sum()), int((rows & ~requests.ok).sum())
        count = facts.locust.get(zone)
        if count is None and facts.records_until_s(clients_of(zone)) is not None:
            continue  # what it counted went with its machine, of which a reason of its own speaks
        if count is None:
            yield f"lost records: Locust in {zone} ended without its counts, {sent} requests are recorded"
        elif (count.requests - count.own_events, count.failures - count.own_failures) != (sent, not_ok):
            own = f" ({count.own_events} and {count.own_failures} the locustfile's own)" if count.own_events else ""
            theirs = f"{count.requests} requests and {count.failures} failures{own}"
            yield f"lost records: Locust in {zone} counts {theirs}, recorded are {sent} and {not_ok}"
    if facts.logs_hops and completeness.lost > 0:
        yield (
            f"lost records: {completeness.lost} ok requests have no hops "
            f"({completeness.explained} more are explained by killed proxies)"
        )


def _unread(unread: Sequence[UnreadLines]) -> Iterator[str]:
    if unread:
        files = "; ".join(_unread_of(log) for log in unread[:_LOGS_NAMED])
        more = f"; and {len(unread) - _LOGS_NAMED} more logs" if len(unread) > _LOGS_NAMED else ""
        yield f"lost records: {sum(log.lines for log in unread)} lines of logs are in no table: {files}{more}"


def _unread_of(log: UnreadLines) -> str:
    kinds = (
        (log.unreadable, "cannot be read"),
        (log.orphans, "finish what was never sent"),
        (log.unknown, "are of a pod that nobody knew"),
    )
    return f"{log.file} ({', '.join(f'{lines} {what}' for lines, what in kinds if lines)})"


def _clocks(facts: RunFacts, limits: Limits) -> Iterator[str]:
    for machine in facts.machines:
        step_ms, error_ms = machine.epoch_step_s * 1e3, machine.clock_error_s * 1e3
        if abs(step_ms) > limits.clock_step_s * 1e3:
            bound = f"at most {limits.clock_step_s * 1e3:g} ms"
            yield f"clock of machine {machine.name} stepped by {step_ms:+.1f} ms during the run, {bound}"
        if error_ms > limits.clock_error_s * 1e3:
            bound = f"at most {limits.clock_error_s * 1e3:g} ms"
            yield f"clock of machine {machine.name} is known to {error_ms:.1f} ms only, {bound}"
    bound = f"at most {limits.fault_late_s * 1e3:g} ms"
    for fault in facts.faults:
        late_s = fault.applied_s - fault.declared_at_s
        if late_s > limits.fault_late_s and not fault.by_command:
            what = "operation" if fault.is_operation else "fault"
            yield f"{what} {fault.name} came {late_s * 1e3:.0f} ms after its time, {bound}"
        if fault.healed_s is not None and fault.declared_heal_s is not None:
            late_s = fault.healed_s - fault.declared_heal_s
            if late_s > limits.fault_late_s:
                yield f"the heal of fault {fault.name} came {late_s * 1e3:.0f} ms after its time, {bound}"


def _unhit(facts: RunFacts) -> Iterator[str]:
    for fault in facts.faults:
        if fault.hit_nothing:
            yield f"fault {fault.name} hit nothing: {fault.hit_nothing}"


def _deaths(unexplained: Sequence[Undeclared]) -> Iterator[str]:
    deaths = [found for found in unexplained if found.invalidates]
    if deaths:
        first = deaths[0]
        more = f", and {len(deaths) - 1} more processes" if len(deaths) > 1 else ""
        memory = " (the kernel does that when memory is short)" if first.why.endswith("signal 9") else ""
        yield f"pod {first.object}: {first.why} at {first.t_s:.2f} s, which no fault declares{memory}{more}"


def _machines(facts: RunFacts) -> Iterator[str]:
    if facts.broken is not None:
        yield facts.broken
    for machine in facts.machines:
        if machine.lost_s is not None and not machine.powered_off:
            lived = ", ".join(machine.places) or "nothing of the cluster"
            yield f"machine {machine.name} was lost at {machine.lost_s:.1f} s, which no fault declares; there: {lived}"


def _median(values: Floats) -> float:
    return float(np.median(values))
