"""A finished run folder -> `summary.json`: what was measured, whether to believe it, and the verdict.

How the emulation uses this package:

1. while the run goes on, `TableWriter` for `events`, `pushes`, `links`, `machines` and `pods`;
2. after it, `ingest_requests`, `ingest_access_log` and `ingest_outlier_log` for the raw records;
3. then `RunFacts(...).save(run_dir)` and `summarize(run_dir)`, whose result `report.show` prints.

The third step can be done again at any time from the folder alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from testbed.results.judge.undeclared import undeclared
from testbed.results.judge.validity import invalid_reasons
from testbed.results.judge.verdict import check, decide
from testbed.results.measure.analysis import ALL, Measured, measure
from testbed.results.measure.calls import completeness
from testbed.results.measure.phases import PhaseStats
from testbed.results.measure.recovery import TARGET_SUCCESS, Aftermath, FaultImpact, Steady
from testbed.results.measure.strangers import without_strangers
from testbed.results.tables.columns import Requests
from testbed.results.tables.facts import MachineFacts, RunFacts
from testbed.results.tables.unread import unexplained_lines
from testbed.results.tables.writer import read_table

Summary = dict[str, Any]
"""The content of `summary.json`. Times in seconds since the load started, shares of 1, null for what has no value."""

_NACKS_SHOWN = 20
_HOP_COLUMNS = (
    "request_id",
    "direction",
    "start_s",
    "source_service",
    "source_zone",
    "source_cell",
    "destination_service",
    "destination_zone",
    "destination_cell",
)


def summarize(run_dir: Path) -> Summary:
    """Analyse the run whose tables and facts are in this folder, and write its `summary.json`.

    Raises BadRunFolder if facts or tables cannot be read, OSError if the summary cannot be written.
    """
    facts = RunFacts.load(run_dir)
    table, pushes = read_table(run_dir, "requests"), read_table(run_dir, "pushes")
    requests, hops = Requests.of(table, facts.faults), read_table(run_dir, "hops", _HOP_COLUMNS)
    strangers = without_strangers(table, hops, facts.unrecorded())
    events = read_table(run_dir, "events")
    measured = measure(facts, requests, strangers.own, events, pushes)
    unexplained = undeclared(events, facts, list(measured.impacts.values()))
    pods = read_table(run_dir, "pods")
    complete = completeness(table, hops, pods, facts.killed_proxies, facts.unrecorded())
    unread = unexplained_lines(facts, events, pods)
    links, machines = read_table(run_dir, "links"), read_table(run_dir, "machines")
    reasons = invalid_reasons(facts, table, requests, links, machines, complete, unexplained, unread)
    judged = not reasons and not facts.interrupted
    results = [check(expectation, measured, judged) for expectation in facts.expectations]
    ok, failed = int(requests.ok.sum()), int(requests.failed.sum())
    summary: Summary = {
        "name": facts.name,
        "verdict": decide(results, reasons, facts.interrupted),
        "valid": not reasons,
        "invalid_reasons": reasons,
        "undeclared": unexplained,
        "interrupted": facts.interrupted,
        "seed": facts.seed,
        "profile": facts.profile,
        "ready_s": facts.ready_s,
        "requests": {"sent": len(requests), "ok": ok, "failed": failed, "unknown": len(requests) - ok - failed},
        "locust": {
            "requests": sum(count.requests for count in facts.locust.values()),
            "failures": sum(count.failures for count in facts.locust.values()),
            "own_events": sum(count.own_events for count in facts.locust.values()),
            "own_failures": sum(count.own_failures for count in facts.locust.values()),
        },
        "errors": _errors(table),
        "expectations": results,
        "recovery_baseline": {
            "steady_not_ok_share": measured.steady.not_ok_share,
            "steady_below_target": measured.steady.below_target,
            "target_success_rate": TARGET_SUCCESS,
        },
        "faults": [_fault(impact, measured.steady) for impact in measured.impacts.values()],
        "phases": [_phase(stats) for stats in measured.stats.values()],
        **_locality(measured),
        "hops": {
            "calls": len(strangers.own),
            "requests_of_strangers": strangers.requests,
            "calls_of_strangers": strangers.hops,
            "ok_requests_without_hops": complete.without_hops,
            "explained_by_killed_proxies": complete.explained,
        },
        "unread_lines": {"all": facts.unread, "unexplained": unread},
        "nacks": _nacks(pushes),
        "machines": [_machine(machine) for machine in facts.machines],
        "missing_load": _missing_load(facts),
        "clock_error_ms": max((machine.clock_error_s for machine in facts.machines), default=0.0) * 1e3,
    }
    content = orjson.dumps(summary, option=orjson.OPT_INDENT_2)
    path = run_dir / "summary.json"
    try:
        path.write_bytes(content + b"\n")
    except OSError as error:
        raise OSError(error.errno, f"cannot be written: {error.strerror}", str(path)) from error
    plain: Summary = orjson.loads(content)
    return plain


def load_summary(run_dir: Path) -> Summary:
    """The summary that `summarize` wrote. Raises FileNotFoundError."""
    plain: Summary = orjson.loads((run_dir / "summary.json").read_bytes())
    return plain


def _fault(impact: FaultImpact, steady: Steady) -> dict[str, Any]:
    fault = impact.fault
    return {
        "name": fault.name,
        "declared_at_s": fault.declared_at_s,
        "applied_s": fault.applied_s,
        "healed_s": fault.healed_s,
        "victims": fault.victims,
        "hit_nothing": fault.hit_nothing,
        **_aftermath(impact.applied, steady),
        "heal": None if impact.healed is None else _aftermath(impact.healed, steady),
    }


def _aftermath(aftermath: Aftermath, steady: Steady) -> dict[str, Any]:
    """`errors_as_in_steady` is how many there would have been at the steady phase's level, without any fault."""
    recovery = aftermath.recovery
    return {
        "first_error_s": recovery.first_error_s,
        "recovered_s": recovery.recovered_s,
        "time_to_recover_s": recovery.time_to_recover_s,
        "errors": recovery.errors,
        "errors_as_in_steady": recovery.sent * steady.not_ok_share,
        "control_path": aftermath.control,
        "shared_with": aftermath.shared_with,
    }


def _phase(stats: PhaseStats) -> dict[str, Any]:
    return {
        "name": stats.phase.name,
        "start_s": stats.phase.start_s,
        "end_s": stats.phase.end_s,
        "sent": stats.sent,
        "ok": stats.ok,
        "failed": stats.failed,
        "unknown": stats.unknown,
        "success_rate": stats.success_rate,
        "not_ok_share": stats.not_ok_share,
        "rate_per_s": stats.rate_per_s,
        "latency_ms": stats.latency_ms,
    }


def _machine(machine: MachineFacts) -> dict[str, Any]:
    return {
        "name": machine.name,
        "places": machine.places,
        "clock_error_ms": machine.clock_error_s * 1e3,
        "clock_drift_ppm": machine.clock_drift * 1e6,
        "lost_s": machine.lost_s,
        "powered_off": machine.powered_off,
    }


def _missing_load(facts: RunFacts) -> list[dict[str, Any]]:
    """The clients that went with their machine: their rate until then, or how many they were in a closed load."""
    return [
        {
            "zone": zone,
            "machine": machine.name,
            "from_s": machine.lost_s,
            "rate_per_s": sum(source.rate_per_s or 0.0 for source in facts.sources if source.zone == zone),
            "users": sum(source.users or 0 for source in facts.sources if source.zone == zone),
        }
        for machine in facts.machines
        if machine.lost_s is not None and machine.lost_s < facts.end_s
        for zone in sorted({source.zone for source in facts.sources})
        if f"clients/{zone}" in machine.places
    ]


def _locality(measured: Measured) -> dict[str, Any]:
    """Shares and matrices by phase; those without a phase in their name are of the steady phase, or of all."""
    localities = measured.localities
    steady = localities.get("steady", localities[ALL])
    return {
        "same_zone_share": steady.same_zone_share,
        "same_cell_share": steady.same_cell_share,
        "same_zone_share_by_service": steady.same_zone_share_by_service,
        "same_zone_share_by_phase": {name: locality.same_zone_share for name, locality in localities.items()},
        "same_cell_share_by_phase": {name: locality.same_cell_share for name, locality in localities.items()},
        "call_matrix": steady.call_matrix,
        "call_matrix_by_phase": {name: locality.call_matrix for name, locality in localities.items()},
    }


def _errors(requests: pa.Table) -> list[dict[str, Any]]:
    """How often each error was seen, the most frequent first."""
    not_ok = requests.filter(pc.not_equal(requests["outcome"], "ok"))
    kinds = pa.table({name: not_ok[name].cast(pa.string()) for name in ("outcome", "error")})
    counted = kinds.group_by(["outcome", "error"]).aggregate([([], "count_all")]).to_pylist()
    order = sorted(counted, key=lambda row: (-row["count_all"], row["outcome"], row["error"] or ""))
    return [{"outcome": row["outcome"], "error": row["error"], "count": row["count_all"]} for row in order]


def _nacks(pushes: pa.Table) -> dict[str, Any]:
    rejected: Sequence[dict[str, Any]] = pushes.filter(pc.is_valid(pushes["error"])).to_pylist()
    first = sorted(rejected, key=lambda push: float(np.nan_to_num(push["sent_s"])))[:_NACKS_SHOWN]
    shown = [{key: push[key] for key in ("proxy", "type", "version", "sent_s", "error")} for push in first]
    return {"count": len(rejected), "first": shown}
