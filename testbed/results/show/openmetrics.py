"""The figures of a summary as OpenMetrics 1.0 text, for whoever keeps those of many runs in one place.

Base units (seconds, bytes, ratios of 1), as the standard wants them; what has no value has no sample. Phases overlap
(`all` has every other one in it): choose one before you sum.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.core import CollectorRegistry
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
    StateSetMetricFamily,
    SummaryMetricFamily,
)
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.registry import Collector

from testbed.results.judge.verdict import EXIT_CODES
from testbed.results.measure.phases import QUANTILES
from testbed.results.show.summary import ChangeFigures, Summary

_Values = Iterable[tuple[tuple[str, ...], float | None]]
"""Values of labels, in their order, and the figure."""


def openmetrics(summary: Summary) -> bytes:
    """The whole exposition, up to its `# EOF`."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Figures(summary))
    text: bytes = generate_latest(registry)  # type: ignore[no-untyped-call]
    return text


class _Figures(Collector):
    def __init__(self, summary: Summary) -> None:
        self._summary = summary

    def collect(self) -> Iterator[Metric]:
        yield from (family for family in _families(self._summary) if family.samples)


def _families(summary: Summary) -> Iterator[Metric]:
    yield from _run(summary)
    yield from _clients(summary)
    yield from _routers(summary)
    yield from _faults(summary)
    yield from _calls(summary)


def _run(summary: Summary) -> Iterator[Metric]:
    run = {"name": summary.name, "seed": str(summary.seed), "profile": summary.profile}
    yield InfoMetricFamily("testbed_run", "What was run.", run)
    states: dict[str, bool] = {verdict: verdict == summary.verdict for verdict in EXIT_CODES}
    yield StateSetMetricFamily("testbed_verdict", "What came of the run.", states)
    yield _gauge("testbed_ready", "How long bring-up took.", (), [((), summary.ready_s)], "seconds")
    reasons = [((), float(len(summary.invalid_reasons)))]
    yield _gauge("testbed_invalid_reasons", "How many reasons there are not to believe the run.", (), reasons)
    clock = [((), summary.clock_error_ms / 1e3)]
    yield _gauge("testbed_clock_error", "By how much times of two machines can be wrong.", (), clock, "seconds")
    held = [((each.text,), None if each.held is None else float(each.held)) for each in summary.expectations]
    yield _gauge("testbed_expectation_held", "1 if it holds, 0 if not.", ("expectation",), held)


def _clients(summary: Summary) -> Iterator[Metric]:
    phases = summary.phases
    lasted = [((phase.name,), phase.end_s - phase.start_s) for phase in phases]
    yield _gauge("testbed_phase_duration", "How long the phase lasted.", ("phase",), lasted, "seconds")
    requests = [
        ((phase.name, outcome), float(getattr(phase, outcome)))
        for phase in phases
        for outcome in ("ok", "failed", "unknown")
    ]
    yield _counter("testbed_requests", "Requests of clients by outcome.", ("phase", "outcome"), requests)
    succeeded = [((phase.name,), phase.success_rate) for phase in phases]
    yield _gauge("testbed_success", "Share of requests that were ok.", ("phase",), succeeded, "ratio")
    latency = SummaryMetricFamily(
        "testbed_request_latency", "Of ok requests, from the intended send time.", labels=("phase",), unit="seconds"
    )
    shares = dict(QUANTILES)
    for phase in phases:
        for quantile, value_ms in phase.latency_ms.items():
            if value_ms is not None:
                labels = {"phase": phase.name, "quantile": str(shares[quantile])}
                latency.add_sample(latency.name, labels, value_ms / 1e3)
    yield latency


def _routers(summary: Summary) -> Iterator[Metric]:
    """What directed clients asked them; nothing where nobody does."""
    asking = [(phase.name, phase.sent, phase.router) for phase in summary.phases if phase.router is not None]
    asked = [((phase,), router.asked / sent) for phase, sent, router in asking if sent]
    yield _gauge("testbed_asked_router", "Share of requests that asked a router.", ("phase",), asked, "ratio")
    questions = [((phase,), float(router.questions)) for phase, _, router in asking]
    yield _counter("testbed_router_questions", "How often they did.", ("phase",), questions)
    took = SummaryMetricFamily(
        "testbed_router_latency", "How long asking took, of requests that were told.", labels=("phase",), unit="seconds"
    )
    for phase, _, router in asking:
        for quantile, value_ms in (("0.5", router.p50_ms), ("0.99", router.p99_ms)):
            if value_ms is not None:
                took.add_sample(took.name, {"phase": phase, "quantile": quantile}, value_ms / 1e3)
    yield took
    unrouted = [((phase,), router.unrouted / sent) for phase, sent, router in asking if sent]
    yield _gauge("testbed_unrouted", "Share of requests that no router told a cell.", ("phase",), unrouted, "ratio")


def _faults(summary: Summary) -> Iterator[Metric]:
    """`change` is `fault` for the fault itself, and `heal`; times count from it."""
    changes: list[tuple[tuple[str, str], float, ChangeFigures]] = []
    for fault in summary.faults:
        changes.append(((fault.name, "fault"), fault.applied_s, fault))
        if fault.heal is not None and fault.healed_s is not None:
            changes.append(((fault.name, "heal"), fault.healed_s, fault.heal))
    labels = ("fault", "change")
    at = [(names, at_s) for names, at_s, _ in changes]
    yield _gauge("testbed_change_at", "When it came, since the load began.", labels, at, "seconds")
    recovery = [(names, figures.time_to_recover_s) for names, _, figures in changes]
    yield _gauge("testbed_time_to_recover", "Until clients were well.", labels, recovery, "seconds")
    never = [(names, float(figures.time_to_recover_s is None)) for names, _, figures in changes]
    yield _gauge("testbed_never_recovered", "1 if clients were not well before the next change.", labels, never)
    errors = [
        ((*names, outcome), float(getattr(figures.errors, outcome)))
        for names, _, figures in changes
        for outcome in ("failed", "unknown")
    ]
    yield _counter("testbed_change_errors", "Requests that were not ok after it.", (*labels, "outcome"), errors)
    steps = [
        ((*names, step), getattr(figures.control_path, f"{step}_s"))
        for names, _, figures in changes
        for step in ("detected", "decided", "pushed", "propagated")
    ]
    text = "When the control plane had come to this step."
    yield _gauge("testbed_control_path", text, (*labels, "step"), steps, "seconds")


def _calls(summary: Summary) -> Iterator[Metric]:
    matrix = [
        ((phase, source, destination), float(calls))
        for phase, by_source in summary.call_matrix_by_phase.items()
        for source, by_destination in by_source.items()
        for destination, calls in by_destination.items()
    ]
    ends = ("phase", "source_zone", "destination_zone")
    yield _counter("testbed_calls", "Calls between pods, gateways' too, by zone.", ends, matrix)
    for where, by_phase in (("zone", summary.same_zone_share_by_phase), ("cell", summary.same_cell_share_by_phase)):
        shares = [((phase,), share) for phase, share in by_phase.items()]
        yield _gauge(
            f"testbed_same_{where}", f"Share of calls that stayed in their {where}.", ("phase",), shares, "ratio"
        )
    ledger = summary.ledger.by_phase
    by_distance = [
        ((phase, distance), traffic)
        for phase, account in ledger.items()
        for distance, traffic in account.by_distance.items()
    ]
    labels, currency = ("phase", "distance"), summary.ledger.prices.currency
    carried = [(names, traffic.bytes) for names, traffic in by_distance]
    yield _counter("testbed_transfer", "What calls carried, both ways.", labels, carried, "bytes")
    paid = [((*names, currency), traffic.cost) for names, traffic in by_distance]
    yield _counter("testbed_transfer_cost", "The price of that.", (*labels, "currency"), paid)
    rights = [
        ((phase, right), float(traffic.calls))
        for phase, account in ledger.items()
        for right, traffic in account.by_right.items()
    ]
    yield _counter("testbed_cell_calls", "Calls by the right that they had to go there.", ("phase", "right"), rights)


def _gauge(name: str, text: str, labels: tuple[str, ...], values: _Values, unit: str = "") -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels, unit=unit)
    for names, value in values:
        if value is not None:
            family.add_metric(names, value)
    return family


def _counter(name: str, text: str, labels: tuple[str, ...], values: _Values, unit: str = "") -> Metric:
    family = CounterMetricFamily(name, text, labels=labels, unit=unit)
    for names, value in values:
        if value is not None:
            family.add_metric(names, value)
    return family
