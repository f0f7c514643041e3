"""A finished run folder -> its Summary, and its report: what was measured, whether to believe it, and the verdict.

How the emulation uses this package:

1. while the run goes on, `TableWriter` for `events`, `pushes`, `links`, `machines` and `pods`;
2. after it, `ingest_requests`, `ingest_access_log` and `ingest_outlier_log` for the raw records;
3. then `RunFacts(...).save(run_dir)` and `summarize(run_dir)`, whose result `report.show` prints.

The third step can be done again at any time from the folder alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from testbed.objects.places import clients_of
from testbed.results.judge.lateness import outlasted
from testbed.results.judge.undeclared import undeclared
from testbed.results.judge.validity import invalid_reasons
from testbed.results.judge.verdict import check, decide
from testbed.results.measure.analysis import ALL, Measured, measure
from testbed.results.measure.calls import completeness
from testbed.results.measure.expected import compared
from testbed.results.measure.recovery import FaultImpact
from testbed.results.measure.strangers import Strangers, without_strangers
from testbed.results.show.changes import change_figures, fault_figures
from testbed.results.show.history_table import history_figures
from testbed.results.show.html.page import page
from testbed.results.show.junit import JUNIT_FILE, junit
from testbed.results.show.summary import (
    ErrorCount,
    FaultFigures,
    HopCounts,
    LedgerFigures,
    MachineFigures,
    MissingLoad,
    Nack,
    Nacks,
    RecoveryBaseline,
    RequestCounts,
    Summary,
    UnreadLogs,
)
from testbed.results.tables.columns import Requests
from testbed.results.tables.facts import LocustCount, MachineFacts, RunFacts
from testbed.results.tables.run import Run
from testbed.results.tables.unread import unexplained_lines
from testbed.scenario import Expectation

_NACKS_SHOWN = 20


def summarize(run_dir: Path, expectations: Sequence[Expectation] | None = None) -> Summary:
    """Analyse the run whose tables and facts are in this folder, and write its `summary.json`, `junit.xml` and
    `report.html`. Other `expectations` take the place of its own, in its facts, too.

    Raises BadRunFolder if facts or tables cannot be read, OSError if one of these cannot be written.
    """
    summary, own, requests = _analysed(run_dir, expectations)
    if expectations is not None:
        own.facts.save(run_dir)
    _write(run_dir / "summary.json", summary.json())
    _write(run_dir / JUNIT_FILE, junit(summary))
    _write(run_dir / "report.html", page(summary, own, requests).encode())
    return summary


def judge(run_dir: Path, expectations: Sequence[Expectation]) -> Summary:
    """The same with other expectations, without writing anything. Raises BadRunFolder."""
    return _analysed(run_dir, expectations)[0]


def _analysed(run_dir: Path, expectations: Sequence[Expectation] | None) -> tuple[Summary, Run, Requests]:
    """With the run, without calls of strangers."""
    run = Run.read(run_dir)
    if expectations is not None:
        run = replace(run, facts=replace(run.facts, expectations=tuple(expectations)))
    strangers = without_strangers(run.requests, run.hops, run.facts.unrecorded())
    requests = Requests.of(run.requests, run.facts.faults)
    own = replace(run, hops=strangers.own)
    return _summary(run, measure(own, requests), requests, strangers), own, requests


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise OSError(error.errno, f"cannot be written: {error.strerror}", str(path)) from error


def _summary(run: Run, measured: Measured, requests: Requests, strangers: Strangers) -> Summary:
    facts, table, events, pods = run.facts, run.requests, run.events, run.pods
    unexplained = undeclared(events, facts, list(measured.impacts.values()))
    complete = completeness(table, run.hops, pods, facts.killed_proxies, facts.unrecorded())
    unread = unexplained_lines(facts, events, pods)
    late = outlasted(events, facts)
    reasons = invalid_reasons(facts, table, requests, run.links, run.machines, complete, unexplained, unread, late)
    judged = not reasons and not facts.interrupted
    results = tuple(check(expectation, measured, judged) for expectation in facts.expectations)
    ok, failed = int(requests.ok.sum()), int(requests.failed.sum())
    steady = measured.calls.get("steady", measured.calls[ALL])
    counts = facts.locust.values()
    return Summary(
        name=facts.name,
        verdict=decide(results, reasons, facts.interrupted),
        valid=not reasons,
        invalid_reasons=reasons,
        undeclared=unexplained,
        interrupted=facts.interrupted,
        seed=facts.seed,
        profile=facts.profile,
        ready_s=facts.ready_s,
        requests=RequestCounts(len(requests), ok, failed, len(requests) - ok - failed),
        locust=LocustCount(
            requests=sum(count.requests for count in counts),
            failures=sum(count.failures for count in counts),
            own_events=sum(count.own_events for count in counts),
            own_failures=sum(count.own_failures for count in counts),
        ),
        errors=tuple(_errors(table)),
        expectations=results,
        recovery_baseline=_baseline(measured),
        faults=tuple(_fault(impact, measured) for impact in measured.impacts.values()),
        phases=tuple(measured.stats.values()),
        same_zone_share=steady.same_zone_share,
        same_cell_share=steady.same_cell_share,
        same_zone_share_by_service=steady.same_zone_share_by_service,
        same_zone_share_by_phase={name: calls.same_zone_share for name, calls in measured.calls.items()},
        same_cell_share_by_phase={name: calls.same_cell_share for name, calls in measured.calls.items()},
        call_matrix=steady.matrix,
        call_matrix_by_phase={name: calls.matrix for name, calls in measured.calls.items()},
        ledger=_ledger(facts, measured),
        hops=HopCounts(
            calls=len(strangers.own),
            requests_of_strangers=strangers.requests,
            calls_of_strangers=strangers.hops,
            ok_requests_without_hops=complete.without_hops,
            explained_by_killed_proxies=complete.explained,
        ),
        unread_lines=UnreadLogs(facts.unread, unread),
        nacks=_nacks(run.pushes),
        machines=tuple(map(_machine, facts.machines)),
        missing_load=tuple(_missing_load(facts)),
        clock_error_ms=max((machine.clock_error_s for machine in facts.machines), default=0.0) * 1e3,
        history=None if measured.history is None else history_figures(measured.history, run.operations),
        leaders=measured.leaders,
        blocked={str(version): blocked for version, blocked in measured.blocked.items()},
    )


def _ledger(facts: RunFacts, measured: Measured) -> LedgerFigures:
    beside = compared(facts.expected, measured.ledger.get("steady"), measured.stats.get("steady"))
    return LedgerFigures(facts.prices, facts.cities, dict(measured.ledger), beside)


def _baseline(measured: Measured) -> RecoveryBaseline:
    steady, rule = measured.steady, measured.steady.rule
    below = {
        by: tuple(name for name, part in parts.items() if part.below_target)
        for by, parts in measured.steady_by.items()
        if parts
    }
    return RecoveryBaseline(
        steady.not_ok_share, steady.below_target, below, rule.at_least, rule.window_s, rule.relative_to_steady
    )


def _fault(impact: FaultImpact, measured: Measured) -> FaultFigures:
    after = change_figures(impact.applied, measured.steady, measured.steady_by)
    heal = None if impact.healed is None else change_figures(impact.healed, measured.steady, measured.steady_by)
    steps = impact.fault.steps
    handovers = tuple(measured.handovers.get(step.version) for step in steps)
    return replace(fault_figures(impact.fault, after, heal), steps=steps, handovers=handovers)


def _machine(machine: MachineFacts) -> MachineFigures:
    return MachineFigures(
        name=machine.name,
        places=machine.places,
        clock_error_ms=machine.clock_error_s * 1e3,
        clock_drift_ppm=machine.clock_drift * 1e6,
        lost_s=machine.lost_s,
        powered_off=machine.powered_off,
    )


def _missing_load(facts: RunFacts) -> Iterator[MissingLoad]:
    for machine in facts.machines:
        if machine.lost_s is None or machine.lost_s >= facts.end_s:
            continue
        for zone in sorted({source.zone for source in facts.sources}):
            if clients_of(zone) in machine.places:
                sources = [source for source in facts.sources if source.zone == zone]
                rate_per_s = sum(source.rate_per_s or 0.0 for source in sources)
                users = sum(source.users or 0 for source in sources)
                yield MissingLoad(zone, machine.name, machine.lost_s, rate_per_s, users)


def _errors(requests: pa.Table) -> list[ErrorCount]:
    not_ok = requests.filter(pc.not_equal(requests["outcome"], "ok"))
    kinds = pa.table({name: not_ok[name].cast(pa.string()) for name in ("outcome", "error")})
    counted = kinds.group_by(["outcome", "error"]).aggregate([([], "count_all")]).to_pylist()
    order = sorted(counted, key=lambda row: (-row["count_all"], row["outcome"], row["error"] or ""))
    return [ErrorCount(row["outcome"], row["error"], row["count_all"]) for row in order]


def _nacks(pushes: pa.Table) -> Nacks:
    rejected = pushes.filter(pc.is_valid(pushes["error"])).to_pylist()
    first = sorted(rejected, key=lambda push: float(np.nan_to_num(push["sent_s"])))[:_NACKS_SHOWN]
    names = ("proxy", "type", "version", "sent_s", "error")
    return Nacks(len(rejected), tuple(Nack(*(push[name] for name in names)) for push in first))
